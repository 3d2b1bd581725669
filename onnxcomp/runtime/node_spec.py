"""A single node by all that decides how long it takes: operator, attributes, shapes; not its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxcomp.ops.attributes import is_constant, qualified
from onnxcomp.runtime.cache import Json

Shape = tuple[int, ...]
AttributeValue = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]

_LARGEST_CONTENT = 64
_CONTENT: dict[str, tuple[int, ...]] = {"Resize": (1, 2), "Upsample": (1,)}
"""Float inputs whose content decides what is computed; that of integers always does."""


@dataclass(frozen=True)
class Port:
    """One input of a node.

    Args:
        shape: Its dimensions.
        dtype: Name in ONNX spelling, as `FLOAT`.
        constant: A weight; else a value that is fed.
        content: Flattened, where it decides what is computed (shapes, axes, scales); else it is drawn at random.
    """

    shape: Shape
    dtype: str = "FLOAT"
    constant: bool = False
    content: tuple[float, ...] | None = None


@dataclass(frozen=True)
class NodeSpec:
    """All that decides how long a node takes.

    Args:
        op_type, domain, opset: The operator.
        inputs: None for one that is left out.
        attributes: Sorted by name.
        outputs: Number of outputs.
    """

    op_type: str
    inputs: tuple[Port | None, ...]
    attributes: tuple[tuple[str, AttributeValue], ...] = ()
    outputs: int = 1
    domain: str = ""
    opset: int = 17

    def resized(self, dims: Mapping[tuple[int, int], int], attributes: Mapping[str, int] | None = None) -> NodeSpec:
        """The node with other widths.

        Args:
            dims: (input, axis) → new length.
            attributes: Numbers to replace, as `group` of a depthwise convolution.
        """
        inputs = list(self.inputs)
        for (index, axis), length in dims.items():
            port = inputs[index]
            if port is None:
                raise ValueError(f"{self.op_type} has no input {index}")
            inputs[index] = replace(port, shape=(*port.shape[:axis], length, *port.shape[axis + 1 :]))
        changed = dict(self.attributes) | dict(attributes or {})
        return replace(self, inputs=tuple(inputs), attributes=tuple(sorted(changed.items())))

    def key(self) -> Json:
        """As JSON, for the cache."""
        ports: Json = [None if p is None else [p.shape, p.dtype, p.constant, p.content] for p in self.inputs]
        operator: Json = [self.domain, self.op_type, self.opset, self.outputs]
        return {"operator": operator, "inputs": ports, "attributes": self.attributes}


def spec_of(node: ir.Node, shapes: Mapping[str, Shape], opset: int) -> NodeSpec | None:
    """What decides the latency of `node`; None when that is more than a single node can show (bodies of If and Loop,
    tensors in attributes, large tables of indices) or a shape is unknown.

    Args:
        shapes: By value name, of a typical call.
    """
    ports: list[Port | None] = []
    for index, value in enumerate(node.inputs):
        if value is None:
            ports.append(None)
            continue
        constant = is_constant(value)
        shape = (
            tuple(value.const_value.shape.numpy()) if constant and value.const_value else shapes.get(value.name or "")
        )
        if shape is None or value.dtype is None:
            return None
        content = None
        if constant and value.const_value and (value.dtype.is_integer() or index in _CONTENT.get(qualified(node), ())):
            array = value.const_value.numpy()
            if value.dtype.bitwidth > 8 and array.size > _LARGEST_CONTENT:
                return None
            content = tuple(array.ravel().tolist()) if array.size <= _LARGEST_CONTENT else None
        ports.append(Port(tuple(int(d) for d in shape), value.dtype.name, constant, content))
    attributes: list[tuple[str, AttributeValue]] = []
    for name, attribute in node.attributes.items():
        value_of = _plain(attribute)
        if value_of is None:
            return None
        attributes.append((name, value_of))
    return NodeSpec(node.op_type, tuple(ports), tuple(sorted(attributes)), len(node.outputs), node.domain, opset)


def _plain(attribute: ir.Attr) -> AttributeValue | None:
    value = attribute.value
    if isinstance(value, int | float | str):
        return value
    return tuple(value) if attribute.type in _LISTS else None


_LISTS = (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS)
