"""SmoothQuant: channels of an activation that are much larger than the others hand part of their size to the weights.

    X·W = (X/s)·(s·W),   s_j = max|X_j|^α / max|W_j|^(1−α)                       (Xiao et al. 2023, equation 4)

One scale for all channels of X then wastes less; each row of W takes the factor, and its scales are per column. Where a
LayerNormalization with constants writes X for nobody else, 1/s goes into them; else it is a Mul.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.readers import Reader
from onnxcomp.model.normalize import clone, giving
from onnxcomp.ops.attributes import constant, int_attribute, is_standard, new_initializer
from onnxcomp.passes.quantize.sites import Site
from onnxcomp.runtime.session import SessionConfig, open_session

Factors = dict[str, tuple[float, ...]]
"""Tensor → s, one for each element of its last axis."""

LARGEST = 1e4
"""Of a factor, and the smallest's reciprocal."""

SMALLEST = 1e-5
"""Of a channel's size, as a share of the largest: below it a channel counts as empty."""


def smoothable(sites: Sequence[Site]) -> dict[str, list[Site]]:
    """Activations that only products with matrices of their own read as integers, with those, by name."""
    found: dict[str, list[Site]] = defaultdict(list)
    refused: set[str] = set()
    for site in sites:
        name = site.inputs[0].name or ""
        weight = site.weight
        if weight is not None and site.node.op_type in ("MatMul", "Gemm") and len(weight.uses()) == 1:
            found[name].append(site)
        else:
            refused.update(v.name or "" for v in site.inputs)
    written = {v.name for s in sites for v in s.outputs if s.output_quantized}
    return {name: users for name, users in found.items() if name not in refused | written}


def channel_sizes(
    model: ir.Model, names: Sequence[str], reader: Reader, config: SessionConfig
) -> dict[str, np.ndarray]:
    """max|X_j| of each element of the last axis over all feeds, float64."""
    result: dict[str, np.ndarray] = {}
    fed = {v.name for v in model.graph.inputs}
    inner = [n for n in names if n not in fed]

    def add(name: str, array: np.ndarray) -> None:
        size = np.abs(array).reshape(-1, array.shape[-1]).max(axis=0, initial=0.0).astype(np.float64)
        result[name] = np.maximum(result[name], size) if name in result else size

    for feed in reader:
        for name in fed.intersection(names):
            add(name or "", feed[name or ""])
    if inner:
        with open_session(giving(model, inner), config) as session:
            for feed in reader:
                for name, array in zip(inner, session.run(feed, inner), strict=True):
                    add(name, array)
    return result


def factors(groups: Mapping[str, Sequence[Site]], sizes: Mapping[str, np.ndarray], alpha: float) -> Factors:
    """s of every activation, with a geometric mean of one; 1 for channels that are empty on either side."""
    result: Factors = {}
    for name, sites in groups.items():
        x = sizes[name]
        w = np.max([_row_sizes(s) for s in sites], axis=0)
        if x.shape != w.shape or not (np.isfinite(x).all() and np.isfinite(w).all()) or not (x.any() and w.any()):
            continue
        used = (x > SMALLEST * x.max()) & (w > SMALLEST * w.max())
        s = np.ones_like(x)
        s[used] = x[used] ** alpha / w[used] ** (1 - alpha)
        s[used] /= np.exp(np.log(s[used]).mean())
        result[name] = tuple(float(f) for f in np.clip(s, 1 / LARGEST, LARGEST).astype(np.float32))
    return result


def smoothed(model: ir.Model, smoothing: Mapping[str, Sequence[float]], sites: Mapping[str, str]) -> ir.Model:
    """A copy that computes the same, with each activation divided and each weight multiplied.

    Args:
        smoothing: s by activation.
        sites: Node that reads an activation → its name.
    """
    result = clone(model)
    if not smoothing:
        return result
    graph = result.graph
    values = ir.convenience.create_value_mapping(graph)
    nodes: dict[str, list[ir.Node]] = defaultdict(list)
    for node in graph:
        if sites.get(node.name or "") in smoothing:
            nodes[sites[node.name or ""]].append(node)
    for name, users in nodes.items():
        value, s = values[name], np.asarray(smoothing[name], np.float32)
        for node in users:
            _multiply_rows(node, s)
        if not _into_norm(value, users, s):
            _divide(graph, value, users, s)
    return result


def _row_sizes(site: Site) -> np.ndarray:
    """max|W_j| of each row, which meets element j of the input."""
    weight = constant(site.weight)
    assert weight is not None
    return np.asarray(np.abs(weight).max(axis=site.weight_axis), np.float64)


def _multiply_rows(node: ir.Node, s: np.ndarray) -> None:
    weight = constant(node.inputs[1])
    assert weight is not None
    assert isinstance(node.graph, ir.Graph)
    transposed = node.op_type == "Gemm" and int_attribute(node, "transB", 0)
    scaled = weight * (s[None, :] if transposed else s[:, None])
    old = node.inputs[1]
    node.replace_input_with(1, new_initializer(node.graph, f"{node.name}.smoothed", scaled.astype(np.float32)))
    if old is not None and not old.uses():
        node.graph.initializers.pop(old.name or "", None)


def _into_norm(value: ir.Value, users: Sequence[ir.Node], s: np.ndarray) -> bool:
    """Divides scale and bias of the norm that writes `value`, if nobody else reads it."""
    norm = value.producer()
    if norm is None or norm.op_type != "LayerNormalization" or not is_standard(norm) or value.is_graph_output():
        return False
    others = {id(u.node) for u in value.uses()} - {id(n) for n in users}
    parameters = [v for v in norm.inputs[1:3] if v is not None]
    arrays = [constant(v) for v in parameters]
    if others or any(a is None or a.shape != s.shape for a in arrays):
        return False
    assert isinstance(norm.graph, ir.Graph)
    for index, array in enumerate(arrays, 1):
        assert array is not None
        made = new_initializer(norm.graph, f"{norm.name}.smoothed.{index}", (array / s).astype(np.float32))
        norm.replace_input_with(index, made)
    return True


def _divide(graph: ir.Graph, value: ir.Value, users: Sequence[ir.Node], s: np.ndarray) -> None:
    reciprocal = new_initializer(graph, f"{value.name}.smoothing", (1.0 / s.astype(np.float64)).astype(np.float32))
    product = ir.node("Mul", [value, reciprocal], name=f"{value.name}.smooth")
    output = product.outputs[0]
    output.name, output.dtype, output.shape = f"{value.name}.smoothed", ir.DataType.FLOAT, value.shape
    for node in users:
        node.replace_input_with(0, output)
    graph.insert_before(users[0], [product])
