"""Typed access to node attributes with their defaults, and to constant tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def float_attribute(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def ints_attribute(node: ir.Node, name: str, default: Sequence[int]) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return tuple(default if attribute is None else attribute.as_ints())


def string_attribute(node: ir.Node, name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()


def is_constant(value: ir.Value | None) -> bool:
    """True for an initializer that no caller can override (not a graph input)."""
    return value is not None and value.const_value is not None and value.is_initializer() and not value.is_graph_input()


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The array of a constant initializer, or None. Reads through the memory map."""
    return (
        value.const_value.numpy()
        if value is not None and is_constant(value) and value.const_value is not None
        else None
    )


def qualified(node: ir.Node) -> str:
    """The operator type; with its domain where that is not ai.onnx.

    >>> qualified(ir.node("Relu", [ir.val("x")])), qualified(ir.node("Gelu", [ir.val("x")], domain="com.microsoft"))
    ('Relu', 'com.microsoft:Gelu')
    """
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"


def is_standard(node: ir.Node) -> bool:
    return node.domain in ("", "ai.onnx")


def bodies(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs inside a node: branches of If, bodies of Loop and Scan."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


PLAIN_ATTRIBUTES = frozenset(
    {
        ir.AttributeType.INT,
        ir.AttributeType.INTS,
        ir.AttributeType.FLOAT,
        ir.AttributeType.FLOATS,
        ir.AttributeType.STRING,
        ir.AttributeType.STRINGS,
    }
)
"""Kinds of attributes that are numbers or text, not tensors or graphs."""


def new_initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Registers `array` under a name derived from `name`."""
    unique, count = name, 1
    while unique in graph.initializers:
        unique, count = f"{name}.{count}", count + 1
    value = ir.val(unique, const_value=ir.tensor(array, name=unique))
    graph.register_initializer(value)
    return value
