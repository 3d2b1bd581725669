"""The same computation in the form for which ONNX Runtime has the faster kernel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import constant, int_attribute, ints_attribute, is_standard
from onnxcomp.passes.simplify.edits import Finding, Scope, edit


def pool_means(model: ir.Model, scope: Scope) -> Iterator[Finding]:
    """ReduceMean over all spatial axes of [N, C, …] becomes GlobalAveragePool, which exists in the blocked layout of
    float convolutions and in integers; a Flatten takes the axes away where they were not kept. In place."""
    for node in tuple(model.graph):
        if node.op_type != "ReduceMean" or not is_standard(node) or node.name in scope.excluded:
            continue
        source, output = node.inputs[0], node.outputs[0]
        rank = source.shape.rank() if source is not None and source.shape is not None else 0
        if source is None or source.dtype != ir.DataType.FLOAT or rank < 3 or _axes(node, rank) != set(range(2, rank)):
            continue
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        pool = ir.node("GlobalAveragePool", [source], name=node.name)
        made = [pool]
        if not int_attribute(node, "keepdims", 1):
            made.append(ir.node("Flatten", [pool.outputs[0]], {"axis": 1}, name=f"{node.name}.flatten"))
            pool.outputs[0].dtype = source.dtype
            assert source.shape is not None
            pool.outputs[0].shape = ir.Shape([*source.shape[:2], *(1,) * (rank - 2)])
        ir.convenience.replace_nodes_and_values(graph, node, [node], made, [output], made[-1].outputs)
        yield edit(pool, "written as pooling", "a mean over all positions is a global average pool")


def _axes(node: ir.Node, rank: int) -> set[int]:
    """Axes that are reduced; empty if they are not constant, or none are named."""
    given = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    axes = ints_attribute(node, "axes", ()) if given is None else given.tolist()
    return {int(a) % rank for a in axes}


def even_slopes(model: ir.Model, scope: Scope) -> Iterator[Finding]:
    """A PRelu whose slopes are all equal becomes a LeakyRelu, or a Relu where they are zero. In place.

    ONNX Runtime fuses both into a float convolution, and both exist in integers; PRelu neither.
    """
    for node in tuple(model.graph):
        if node.op_type != "PRelu" or not is_standard(node) or node.name in scope.excluded:
            continue
        source, slopes = node.inputs[0], constant(node.inputs[1])
        if source is None or source.dtype != ir.DataType.FLOAT or slopes is None or not slopes.size:
            continue
        slope = float(slopes.flat[0])
        if not np.isfinite(slope) or not (slopes == slopes.flat[0]).all():
            continue
        made = ir.node("LeakyRelu", [source], {"alpha": slope}, name=node.name)
        if slope == 0.0:
            made = ir.node("Relu", [source], name=node.name)
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        ir.convenience.replace_nodes_and_values(graph, node, [node], [made], node.outputs, made.outputs)
        yield edit(node, "written as a rectifier", f"all its slopes are {slope:g}: {made.op_type}")


def part_norms(model: ir.Model, scope: Scope) -> Iterator[Finding]:
    """An Add in front of a LayerNormalization becomes a Sum, in place.

    ONNX Runtime fuses Add and LayerNormalization into SkipLayerNormalization, whose CPU kernel is several times slower
    than the two (`contrib_ops/cpu/skip_layer_norm.cc`); a Sum it leaves alone. On GPUs the fused kernel is faster.
    """
    if scope.provider != "cpu":
        return
    for norm in tuple(model.graph):
        source = norm.inputs[0] if norm.op_type == "LayerNormalization" and is_standard(norm) else None
        add = source.producer() if source is not None else None
        if add is None or add.op_type != "Add" or not is_standard(add) or add.graph is not norm.graph:
            continue
        if add.name in scope.excluded or norm.name in scope.excluded or source is None:
            continue
        if source.dtype != ir.DataType.FLOAT or any(constant(v) is not None for v in add.inputs):
            continue
        add.op_type = "Sum"
        yield edit(add, "kept apart from its norm", f"a Sum is not fused with {norm.name} into a slower kernel")
