"""What is worth knowing about a model and stops nothing: custom operators, what is dropped, what was put right."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import onnx
from google.protobuf import unknown_fields  # type: ignore[import-untyped]

from onnxcomp.model.naming import Container
from onnxcomp.report.text import plural, printable


class FindingCode(StrEnum):
    """What was noticed while a model was loaded; stable."""

    CUSTOM_DOMAIN = "custom-domain"
    FUNCTIONS = "functions"
    TRAINING_INFO = "training-info-dropped"
    UNKNOWN_FIELDS = "unknown-fields-dropped"
    NODES_SORTED = "nodes-sorted"
    DOC_STRINGS = "doc-strings"


@dataclass(frozen=True)
class Finding:
    """A fact about a model that stops nothing, but must not stay silent."""

    code: FindingCode
    sentence: str


# onnx/onnx-operators.proto and onnxruntime/core/graph/constants.h
_KNOWN_DOMAINS = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        "ai.onnx.training",
        "com.microsoft",
        "com.microsoft.experimental",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
    }
)


def foreign_operators(proto: onnx.ModelProto, containers: list[Container]) -> dict[str, Counter[str]]:
    """Operators that neither ONNX, ONNX Runtime nor a function of the model defines.

    Args:
        proto: The model.
        containers: All its graphs and function bodies.

    Returns:
        Domain → operator → how many nodes.
    """
    local = {(f.domain, f.name) for f in proto.functions}
    foreign: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for container in containers:
        for node in container.node:
            if node.domain not in _KNOWN_DOMAINS and (node.domain, node.op_type) not in local:
                foreign[node.domain][node.op_type] += 1
    return foreign


def collect(
    proto: onnx.ModelProto,
    containers: list[Container],
    foreign: dict[str, Counter[str]],
    unsorted: bool,
) -> Iterator[Finding]:
    """What the report says about a model that passed.

    Args:
        proto: The model.
        containers: All its graphs and function bodies.
        foreign: From `foreign_operators`.
        unsorted: Some graph is not in topological order.
    """
    for domain, operators in sorted(foreign.items()):
        names = printable(", ".join(sorted(operators)), 200)
        yield Finding(
            FindingCode.CUSTOM_DOMAIN,
            f"{plural(operators.total(), 'node')} of '{printable(domain)}' ({names}), whose operators ONNX Runtime "
            "lacks: left alone, and running the model needs their library",
        )
    if proto.functions:
        yield Finding(FindingCode.FUNCTIONS, f"functions defined inside the model: {len(proto.functions)}")
    if proto.training_info:
        yield Finding(FindingCode.TRAINING_INFO, "The training information is dropped: only inference is kept")
    if count := _unknown_fields(proto, containers):
        yield Finding(
            FindingCode.UNKNOWN_FIELDS, f"{count} fields that ONNX {onnx.__version__} does not know are dropped"
        )
    if unsorted:
        yield Finding(
            FindingCode.NODES_SORTED, "The nodes were not in topological order, which ONNX demands: they are sorted now"
        )
    texts = [len(node.doc_string) for container in containers for node in container.node if node.doc_string]
    if texts:
        yield Finding(
            FindingCode.DOC_STRINGS,
            f"doc strings on {plural(len(texts), 'node')}, {sum(texts):,} characters: they are kept",
        )


def _unknown_fields(proto: onnx.ModelProto, containers: list[Container]) -> int:
    return len(unknown_fields.UnknownFieldSet(proto)) + sum(
        len(unknown_fields.UnknownFieldSet(message))
        for container in containers
        for message in (container, *container.node)
    )
