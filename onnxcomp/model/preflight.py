"""Checks that a model passes before anything reads its weights or its graph.

They look at the protobuf, because onnx-ir silently drops or repairs some of what is refused or reported here: sparse
initializers, training info, unknown fields, repeated names, inputs that nobody makes. Versions are judged in
`versions`, names and their order in `naming`, tensors in `payload`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from onnxcomp.errors import ModelError
from onnxcomp.model import findings, naming, payload
from onnxcomp.model.expansion import inlined_nodes
from onnxcomp.model.findings import Finding
from onnxcomp.model.naming import Container
from onnxcomp.model.ranks import check_ranks
from onnxcomp.model.schemas import check_schemas
from onnxcomp.model.utf8 import check_utf8
from onnxcomp.model.versions import STANDARD_DOMAINS, check_versions
from onnxcomp.report.text import printable


@dataclass(frozen=True)
class LoadLimits:
    """How large a model may be. Beyond these it is refused, so that a hostile file can't exhaust the machine.

    Args:
        graph_bytes: Of the graph file; protobuf itself ends at 2 GiB.
        data_bytes: Of all data files together, and of all tensors in them.
        nodes: Of the graph, its subgraphs and its functions; again with the functions inlined.
        depth: Of subgraphs inside subgraphs.
    """

    graph_bytes: int = 2**31 - 1
    data_bytes: int = 64 * 2**30
    nodes: int = 1_000_000
    depth: int = 32


@dataclass(frozen=True)
class Facts:
    """What preflight learned.

    Args:
        findings: For the report.
        unknown_domains: Of operators that neither ONNX, ONNX Runtime nor a function of the model defines, sorted.
        external: (tensor, how to name it) of every tensor whose values lie in another file.
        unsorted: Some graph is not in topological order.
    """

    findings: tuple[Finding, ...]
    unknown_domains: tuple[str, ...]
    external: tuple[tuple[onnx.TensorProto, str], ...]
    unsorted: bool


def preflight(proto: onnx.ModelProto, *, limits: LoadLimits, ort_version: str | None = None) -> Facts:
    """Refuses a model that can't be worked on, and says what else is worth knowing. Nothing is changed.

    Args:
        proto: The model as it was parsed.
        limits: Sizes beyond which it is refused.
        ort_version: Of the ONNX Runtime that it must load in; None: not checked.

    Raises:
        ModelError: With the tensor, node or version at fault.
    """
    if not proto.graph.output:
        raise ModelError(
            "the model has no outputs, so nothing of it is ever computed", hint="Export it again with outputs."
        )
    check_versions(proto, ort_version)
    check_utf8(proto, "the model")
    titled = list(_containers(proto, limits))
    external = tuple((tensor, where) for tensor, where in _tensors(titled) if not _checked_inline(tensor, where))
    containers = [container for _, container in titled]
    _check_opset_is_told(proto, containers)
    _check_schemas(proto)
    unsorted = naming.check_names(proto)
    if proto.functions and inlined_nodes(proto) > limits.nodes:
        raise ModelError(
            f"the model has more than {limits.nodes:,} nodes once its functions are inlined",
            hint="Raise LoadLimits.nodes if you trust it.",
        )
    foreign = findings.foreign_operators(proto, containers)
    found = tuple(findings.collect(proto, containers, foreign, unsorted))
    return Facts(found, tuple(sorted(foreign)), external, unsorted)


def _containers(proto: onnx.ModelProto, limits: LoadLimits) -> Iterator[tuple[str, Container]]:
    """Every graph and function body with a title for messages. Without recursion, as depth is what it limits."""
    nodes = 0
    stack: list[tuple[str, Container, int]] = [("the graph", proto.graph, 0)]
    stack += [(f"the function '{printable(f.name)}'", f, 0) for f in proto.functions]
    while stack:
        title, container, depth = stack.pop()
        nodes += len(container.node)
        if nodes > limits.nodes:
            raise ModelError(
                f"the model has more than {limits.nodes:,} nodes", hint="Raise LoadLimits.nodes if you trust it."
            )
        if depth > limits.depth:
            raise ModelError(
                f"the model nests subgraphs more than {limits.depth} deep",
                hint="Raise LoadLimits.depth if you trust it.",
            )
        yield title, container
        for node in container.node:
            if any(not entry.configuration_id for entry in node.device_configurations):
                raise ModelError(
                    f"{naming.describe(node)} has a device configuration without a name", hint="Export the model again."
                )
            stack += [(f"a subgraph of {naming.describe(node)}", g, depth + 1) for g in naming.subgraphs(node)]


def _tensors(titled: list[tuple[str, Container]]) -> Iterator[tuple[onnx.TensorProto, str]]:
    """Every dense tensor with how to name it; refuses sparse ones and attributes that no reader would understand."""
    for title, container in titled:
        if isinstance(container, onnx.GraphProto):
            for sparse in container.sparse_initializer:
                _refuse_sparse(f"initializer '{printable(sparse.values.name)}' of {title}")
            yield from ((t, f"initializer '{printable(t.name)}'") for t in container.initializer)
        else:
            yield from _attribute_tensors(container.attribute_proto, title)
        for node in container.node:
            yield from _attribute_tensors(node.attribute, naming.describe(node))


def _attribute_tensors(attributes: list[onnx.AttributeProto], owner: str) -> Iterator[tuple[onnx.TensorProto, str]]:
    for attribute in attributes:
        where = f"attribute '{printable(attribute.name)}' of {owner}"
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            _refuse_sparse(where)
        if not attribute.ref_attr_name:
            _check_kind(attribute, where)
        if attribute.HasField("t"):
            yield attribute.t, where
        yield from ((t, where) for t in attribute.tensors)


def _check_kind(attribute: onnx.AttributeProto, where: str) -> None:
    """Refuses an attribute that says one type and holds another: some readers go by the one, some by the other."""
    kinds = onnx.AttributeProto
    if attribute.type == kinds.UNDEFINED:
        raise ModelError(f"{where} has no type, so its value can't be read", hint="Export the model with a newer tool.")
    one = attribute.HasField("t"), attribute.HasField("g")
    told = attribute.type
    stray = (attribute.tensors and told != kinds.TENSORS) or (attribute.graphs and told != kinds.GRAPHS)
    if stray or one != (told == kinds.TENSOR, told == kinds.GRAPH):
        raise ModelError(f"{where} does not hold what its type says", hint="Export the model again.")


def _refuse_sparse(where: str) -> None:
    raise ModelError(
        f"{where} is a sparse tensor, which onnxcomp does not read",
        hint="Store it dense, e.g. with onnx.numpy_helper.from_array, and save the model again.",
    )


def _checked_inline(tensor: onnx.TensorProto, where: str) -> bool:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return False
    payload.check_inline(tensor, where)
    return True


def _check_schemas(proto: onnx.ModelProto) -> None:
    """By the opsets of the model, or, in the body of a function, by its own."""
    told = {e.domain: e.version for holder in (*proto.functions, proto) for e in holder.opset_import}
    for holder, roots in ((proto, [proto.graph]), *((f, [f]) for f in proto.functions)):
        own = told | {e.domain: e.version for e in holder.opset_import}
        opsets = {"" if domain == "ai.onnx" else domain: version for domain, version in own.items()}
        stack: list[Container] = list(roots)
        while stack:
            container = stack.pop()
            check_schemas(container, opsets)
            if isinstance(container, onnx.GraphProto):
                check_ranks(container)
            stack += [g for node in container.node for g in naming.subgraphs(node)]


def _check_opset_is_told(proto: onnx.ModelProto, containers: list[Container]) -> None:
    imported = {entry.domain for holder in (proto, *proto.functions) for entry in holder.opset_import}
    if not imported.isdisjoint(STANDARD_DOMAINS):
        return
    for node in (node for container in containers for node in container.node):
        if node.domain in STANDARD_DOMAINS:
            raise ModelError(
                f"{naming.describe(node)} is a standard operator, but the model does not say of which opset",
                hint='Add the right one: model.opset_import.append(onnx.helper.make_opsetid("", 17)).',
            )
