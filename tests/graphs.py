"""Textual ONNX graphs for tests: the reader sees the graph, the weights fill themselves."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.readers import DataKind, Feed, Reader
from onnxcomp.ops.targets import TARGETS
from onnxcomp.passes.base import Context
from onnxcomp.runtime.session import SessionConfig, open_session


def graph(text: str, *, opset: int = 17, ir_version: int = 8, seed: int = 0, **weights: np.ndarray) -> ir.Model:
    """A model from `text`, as 'g (float[N,3] x, float[3,4] w) => (float[N,4] y) { y = MatMul(x, w) }'.

    Inputs whose name starts with `w` become initializers with seeded normal values; `weights` sets some by name.
    """
    model = ir.from_onnx_text(f'<ir_version: {ir_version}, opset_import: ["": {opset}, "com.microsoft": 1]> {text}')
    rng = np.random.default_rng(seed)
    for value in list(model.graph.inputs):
        name = value.name or ""
        if not name.startswith("w"):
            continue
        shape = tuple(int(d) for d in value.shape)
        if name in weights:
            array = weights[name]
        else:
            fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 1
            array = (rng.standard_normal(shape) / np.sqrt(max(fan_in, 1))).astype(value.dtype.numpy())
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=name)
        value.shape = ir.Shape(array.shape)
        model.graph.register_initializer(value)
    return model


def feeds(model: ir.Model, count: int = 4, *, batch: int = 1, seed: int = 1, scale: float = 1.0) -> list[Feed]:
    """Normal feeds; symbolic dimensions are `batch`."""
    rng = np.random.default_rng(seed)
    return [
        {
            v.name: np.asarray(
                rng.standard_normal([d if isinstance(d, int) else batch for d in v.shape]) * scale, v.dtype.numpy()
            )
            for v in model.graph.inputs
        }
        for _ in range(count)
    ]


def reader(items: list[Feed]) -> Reader:
    return Reader(lambda: iter(items), DataKind.REAL, "test", len(items))


def context(items: list[Feed], target: str = "cpu-vnni") -> Context:
    """A context that learns from `items`, on one thread."""
    return Context(
        reader(items),
        TARGETS[target],
        SessionConfig(threads=1),
        shapes={k: v.shape for k, v in items[0].items()},
        feed=items[0],
    )


def run(model: ir.Model, feed: Feed) -> list[np.ndarray]:
    """Outputs by ONNX Runtime: the independent source that edits are held against."""
    with open_session(model, SessionConfig(threads=1)) as session:
        return session.run(feed)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
