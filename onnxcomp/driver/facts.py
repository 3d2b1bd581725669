"""Facts about models for the report, and the provenance that a result carries."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnxcomp import __version__
from onnxcomp.model.cost import cost
from onnxcomp.model.load import LoadedModel
from onnxcomp.model.normalize import clone
from onnxcomp.ops.attributes import is_standard
from onnxcomp.report.structures import DataFacts, ModelFacts
from onnxcomp.runtime.host import detect_host
from onnxcomp.runtime.library import version as ort_version


def model_facts(
    model: ir.Model,
    name: str,
    sha256: str,
    size: int,
    shapes: Mapping[str, Sequence[int]],
    *,
    counted_as: ir.Model | None = None,
) -> ModelFacts:
    """Figures of `model`; MACs are counted on `counted_as` (a form of it whose shapes can be inferred) at `shapes`."""
    own = cost(model)
    try:
        counted = cost(counted_as or model, shapes)
        macs, unknown = counted.macs, counted.macs_unknown
    except Exception:  # shape inference of a foreign graph; the figure is left out, and the report says so
        macs, unknown = 0, -1
    return ModelFacts(
        name=name,
        sha256=sha256,
        bytes=size,
        opset=model.opset_imports.get("", 0),
        ir_version=model.ir_version,
        nodes=own.nodes,
        parameters=own.parameters,
        weight_bytes=own.weight_bytes,
        macs=macs if unknown == 0 else None,
        macs_unknown=max(0, unknown),
        operators=own.operators,
    )


def with_provenance(
    model: ir.Model, source: LoadedModel, recipe: str, passes: Sequence[str], calibration: DataFacts | None
) -> ir.Model:
    """A copy that says where it comes from in `metadata_props`: no time, host, user or path.

    Types and shapes between the nodes that anyone can infer are left out where the source has none: in a small model
    they take more bytes than its nodes.
    """
    result = clone(model)
    if not any(_annotated(node) for node in source.model.graph):
        for node in result.graph:
            if is_standard(node) and _annotated(node):
                for value in node.outputs:
                    if not value.is_graph_output():
                        value.type = value.shape = None
    result.metadata_props.update(
        {
            "onnxcomp.version": __version__,
            "onnxcomp.source_sha256": source.sha256,
            "onnxcomp.recipe_sha256": hashlib.sha256(recipe.encode()).hexdigest(),
            "onnxcomp.passes": ",".join(passes),
            "onnxcomp.calibration": "none"
            if calibration is None
            else f"{calibration.kind}:{calibration.samples}:{calibration.sha256[:16]}",
        }
    )
    return result


def _annotated(node: ir.Node) -> bool:
    """Whether the type or shape of an output is told that is none of the model's."""
    return any((v.shape is not None or v.type is not None) and not v.is_graph_output() for v in node.outputs)


def versions() -> dict[str, str]:
    import numpy
    import onnx

    return {
        "onnxcomp": __version__,
        "onnx": onnx.__version__,
        "onnx_ir": ir.__version__,
        "onnxruntime": ort_version(),
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }


def host_line() -> str:
    """CPU and cores, as the report shows the machine."""
    host = detect_host()
    return f"{host.cpu}, {host.physical_cores} cores, {host.architecture}"
