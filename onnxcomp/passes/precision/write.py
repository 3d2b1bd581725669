"""Writes a plan into a graph: 16-bit weights and activations, and one Cast for each value that crosses a border."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import PlanError
from onnxcomp.model.normalize import clone, free_name
from onnxcomp.ops.attributes import constant, is_constant
from onnxcomp.ops.halves import HALVES, Half, Operands, operands
from onnxcomp.passes.precision.flow import LARGE, handed_out, is_cast, is_float32, takes_any
from onnxcomp.passes.precision.plan import PrecisionPlan
from onnxcomp.report.text import printable


def write_half(model: ir.Model, plan: PrecisionPlan) -> ir.Model:
    """A copy of `model` (canonical form) with the plan's nodes in 16 bits; inputs and outputs keep their types.

    Raises:
        PlanError: The plan has a node in 16 bits that ONNX does not allow there.
    """
    result = clone(model)
    writer = _Writer(result, plan)
    writer.clamp()
    for value in writer.values():
        writer.convert(value)
    writer.finish()
    return result


class _Writer:
    def __init__(self, model: ir.Model, plan: PrecisionPlan) -> None:
        self._graph, self._half = model.graph, HALVES[plan.dtype]
        self._clamped = plan.clamped
        opset = model.opset_imports.get("", 0)
        halved = plan.changes()
        nodes = [n for n in model.graph if n.name in halved]
        self._operands = {n: _allowed(n, opset, self._half) for n in nodes}
        self._handed = handed_out(model.graph)
        self._taken = {v.name for v in ir.convenience.create_value_mapping(model.graph).values() if v.name}
        self._taken |= {n.name for n in model.graph.all_nodes() if n.name}
        self._casts: dict[ir.Value, ir.Value] = {}

    def clamp(self) -> None:
        """Brings the constants of masks into the range of the type; infinities stay what they are."""
        for name in self._clamped:
            value = self._graph.initializers[name]
            array = constant(value)
            assert array is not None
            largest = np.float32(self._half.largest)
            bounded = np.where(np.isinf(array), array, np.clip(array, -largest, largest)).astype(np.float32)
            value.const_value = ir.tensor(bounded, name=name)

    def values(self) -> list[ir.Value]:
        """All float32 values of the main graph, each behind what it is computed from."""
        own = (*self._graph.inputs, *self._graph.initializers.values(), *(v for n in self._graph for v in n.outputs))
        return [v for v in dict.fromkeys(own) if is_float32(v)]

    def convert(self, value: ir.Value) -> None:
        """Gives every reader of `value` the type that it takes."""
        halves, floats = [], []
        for use in value.uses():
            node, index = use.node, use.idx
            if node in self._operands and self._operands[node].inputs[index]:
                halves.append((node, index))
            elif not takes_any(node) or node.graph is not self._graph:
                floats.append((node, index))
        producer = value.producer()
        if producer in self._operands and self._operands[producer].outputs[value.index() or 0]:
            self._produced_half(value, floats)
        elif halves and is_constant(value):
            self._constant(value, halves, bool(floats) or value.is_graph_output() or value in self._handed)
        elif halves:
            _rewire(halves, self._as_half(value))

    def finish(self) -> None:
        """Casts that nobody reads any more go, and weights."""
        for node in reversed(list(self._graph)):
            if is_cast(node) and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
                self._graph.remove(node, safe=True)
        for name, value in list(self._graph.initializers.items()):
            if not value.uses() and not value.is_graph_output() and value not in self._handed:
                del self._graph.initializers[name]
        self._graph.sort()

    def _produced_half(self, value: ir.Value, floats: list[tuple[ir.Node, int]]) -> None:
        value.type = ir.TensorType(self._half.dtype)  # the clone shares its type objects with the original
        if not floats and not value.is_graph_output():
            return
        back = self._cast(value, ir.DataType.FLOAT)
        _rewire(floats, back)
        outputs = self._graph.outputs
        for index, output in enumerate(outputs):
            if output is value:
                outputs[index] = back
        if back.is_graph_output():  # the name belongs to the graph's output
            name = value.name
            value.name, back.name = free_name(f"{name}.{self._half.name}", self._taken), name

    def _constant(self, value: ir.Value, halves: list[tuple[ir.Node, int]], float_too: bool) -> None:
        tensor = value.const_value
        assert tensor is not None
        if not float_too and len(halves) == len(value.uses()):
            value.const_value = _narrowed(tensor, self._half, value.name or "")
            value.type = ir.TensorType(self._half.dtype)
        elif tensor.size <= LARGE:
            name = free_name(f"{value.name}.{self._half.name}", self._taken)
            copy = ir.val(name, const_value=_narrowed(tensor, self._half, name))
            copy.dtype, copy.shape = self._half.dtype, value.shape
            self._graph.register_initializer(copy)
            _rewire(halves, copy)
        else:
            _rewire(halves, self._as_half(value))

    def _as_half(self, value: ir.Value) -> ir.Value:
        """`value` in 16 bits: from before a Cast to float32 where there is one."""
        producer = value.producer()
        if is_cast(producer) and producer is not None and producer.graph is self._graph:
            source = producer.inputs[0]
            if source is not None and source.dtype == self._half.dtype:
                return source
            if source is not None and source.dtype not in (None, ir.DataType.STRING):
                value = source
        if value not in self._casts:
            self._casts[value] = self._cast(value, self._half.dtype)
        return self._casts[value]

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        kind = "float32" if dtype == ir.DataType.FLOAT else self._half.name
        node = ir.node("Cast", [value], {"to": dtype.value}, name=free_name(f"{value.name}.to_{kind}", self._taken))
        result = node.outputs[0]
        result.name = free_name(f"{value.name}.{kind}", self._taken)
        result.dtype, result.shape = dtype, value.shape
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], [node])
        else:
            self._graph.insert_after(producer, [node])
        return result


def _rewire(readers: list[tuple[ir.Node, int]], value: ir.Value) -> None:
    for node, index in readers:
        node.replace_input_with(index, value)


def _narrowed(tensor: ir.TensorProtocol, half: Half, name: str) -> ir.TensorProtocol:
    """The tensor in 16 bits, converted each time that it is read: what is large stays in its file until then."""

    def narrow() -> ir.TensorProtocol:
        with np.errstate(over="ignore"):  # a plan edited by hand may ask for it
            return ir.tensor(tensor.numpy().astype(half.dtype.numpy()), name=name)

    return ir.LazyTensor(
        narrow,
        half.dtype,
        ir.Shape(tensor.shape.numpy()),
        name=name,
    )


def _allowed(node: ir.Node, opset: int, half: Half) -> Operands:
    allowed = operands(node, opset, half)
    if allowed is None or not any((*allowed.inputs, *allowed.outputs)):
        raise PlanError(
            f"the plan has {printable(node.name or '')!r} in {half.name}, and {node.op_type} has no such form",
            hint="leave it in float",
        )
    return allowed
