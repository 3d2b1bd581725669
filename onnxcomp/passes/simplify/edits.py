"""Small graph edits that several rules share."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def only_user(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value` once, if it is no output of the graph."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def new_initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Registers `array` under a name derived from `name`."""
    unique, count = name, 1
    while unique in graph.initializers:
        unique, count = f"{name}.{count}", count + 1
    value = ir.val(unique, const_value=ir.tensor(array, name=unique))
    graph.register_initializer(value)
    return value


def bypass(node: ir.Node, source: ir.Value) -> bool:
    """Removes `node`: whoever read its first output reads `source`. False if that would rename an input or output of the graph."""
    output = node.outputs[0]
    if output.is_graph_output():
        producer = source.producer()
        if (
            source.is_graph_input()
            or source.is_graph_output()
            or source.is_initializer()
            or producer is None
            or producer.graph is not node.graph
        ):
            return False
        name = output.name
        ir.convenience.replace_all_uses_with(output, source, replace_graph_outputs=True)
        output.name, source.name = f"{name}.bypassed", name
        source.shape, source.type = output.shape, output.type
    else:
        ir.convenience.replace_all_uses_with(output, source)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def replace_by_constant(node: ir.Node, index: int, array: np.ndarray) -> bool:
    """Readers of output `index` read an initializer instead. False for outputs of the graph, which keep their producer."""
    output = node.outputs[index]
    if output.is_graph_output() or not isinstance(node.graph, ir.Graph):
        return False
    value = new_initializer(node.graph, output.name or node.op_type, array)
    ir.convenience.replace_all_uses_with(output, value)
    return True
