"""The graph that ONNX Runtime really runs: with its fusions, integer kernels and layouts."""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from onnxcomp.errors import ModelError
from onnxcomp.runtime.session import SessionConfig, open_session
from onnxcomp.runtime.source import TemporaryFolder

_WEIGHTS = (
    ("session.optimized_model_external_initializers_file_name", "weights.data"),
    ("session.optimized_model_external_initializers_min_size_in_bytes", "1024"),
)


def optimized_graph(model: ir.Model | bytes | Path, config: SessionConfig | None = None) -> ir.Model:
    """Loads the model and gives what ONNX Runtime made of it.

    The result is for reading: at level `all` it holds layouts of this machine (`com.microsoft.nchwc`). Its weights are
    mapped from a temporary folder that lives as long as the result.

    Raises:
        ModelError: ONNX Runtime refuses the model, or wrote a graph that can't be read.
    """
    folder = TemporaryFolder()
    try:
        path = Path(folder.name).absolute() / "optimized.onnx"
        config = config or SessionConfig()
        open_session(model, replace(config, optimized_path=path, entries=(*config.entries, *_WEIGHTS))).close()
        optimized = _load(path)
    except BaseException:
        folder.cleanup()
        raise
    weakref.finalize(optimized, folder.cleanup)
    return optimized


def operator_counts(model: ir.Model) -> Counter[str]:
    """How often each operator occurs, bodies of `If`, `Loop` and `Scan` included; `domain:op`, or `op` of ONNX itself.

    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[3] x) => (float[3] y) { a = Relu(x) y = Relu(a) }'
    >>> operator_counts(ir.from_onnx_text(text))
    Counter({'Relu': 2})
    """
    nodes = model.graph.all_nodes()
    return Counter(f"{node.domain}:{node.op_type}" if node.domain else node.op_type for node in nodes)


def _load(path: Path) -> ir.Model:
    try:
        return ir.load(path)
    except Exception as error:
        raise ModelError(f"the graph that ONNX Runtime optimised can't be read: {error}") from error
