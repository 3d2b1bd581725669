"""Writes a plan into a graph as QuantizeLinear/DequantizeLinear pairs: the only place where quantisation edits a
model."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import PlanError
from onnxcomp.model.normalize import clone
from onnxcomp.ops.attributes import constant, is_constant
from onnxcomp.ops.targets import TARGETS, Int8
from onnxcomp.passes.integer_weights import quantize_weight
from onnxcomp.passes.products import drop_unread
from onnxcomp.passes.quantize.affine import QMAX, Affine, from_range, quantize_bias, scalar_constant
from onnxcomp.passes.quantize.forms import FORMS
from onnxcomp.passes.quantize.placement import quantized_values, settle
from onnxcomp.passes.quantize.plan import QParams, QuantPlan
from onnxcomp.passes.quantize.sites import Site
from onnxcomp.passes.quantize.styles import sites_for
from onnxcomp.passes.tables import write_tables
from onnxcomp.report.text import meant, printable

ZERO_POINT_TYPES = {"uint8": np.uint8, "int8": np.int8}
INTEGERS = {"uint8": ir.DataType.UINT8, "int8": ir.DataType.INT8}


def write_qdq(model: ir.Model, plan: QuantPlan) -> ir.Model:
    """A copy of `model` (canonical form) with the plan's INT8 nodes between DequantizeLinear and QuantizeLinear.

    Activations: uint8 or int8 as the plan's target wants them, per tensor. Weights: int8, symmetric, per output
    channel. Bias: int32 at scale s_x·s_w. Scales and zero points are 0-d (a shape [1] makes ONNX Runtime's saved graphs
    fail at QLinearAdd), and a zero point is always there (MaxPool needs it to fuse).

    Raises:
        PlanError: A node of the plan is not there.
    """
    result = clone(model)
    _check_names(plan, [node.name or "" for node in result.graph])
    form = TARGETS[plan.target].int8 if plan.target in TARGETS else Int8()
    sites, _ = sites_for(form.placement, result, (), ())
    # A node that lost its INT8 neighbours since the plan was made would only be converted back and forth.
    chosen = settle([s for s in sites if s.name in plan.quantized()])
    writer = _Writer(result, plan, form)
    values, replaced = quantized_values(chosen)
    # Inputs first: the integer reads below must find the float readers that stay float untouched.
    dequantized = {name: writer.activation(value, name in replaced) for name, value in values.items()}
    for site in chosen:
        writer.rewire(site, dequantized)
    for site in chosen:
        if form.rewrites and site.node.op_type in FORMS:
            FORMS[site.node.op_type](writer, site.node)
    write_tables(result, plan.tables)
    writer.finish()
    return result


def _check_names(plan: QuantPlan, names: list[str]) -> None:
    """No node that the plan changes is missing: a slip of the pen would leave one in float without a word."""
    for name in sorted(plan.changes().difference(names)):
        raise PlanError(
            f"the plan's node {printable(name)!r} is not in the model",
            hint=meant(name, names) or "make a new one with --dry-run",
        )


class _Writer:
    def __init__(self, model: ir.Model, plan: QuantPlan, form: Int8) -> None:
        self._model, self._graph, self._plan, self._form = model, model.graph, plan, form
        self._taken = set(ir.convenience.create_value_mapping(model.graph)) | set(model.graph.initializers)
        # A value that is a graph output gives its name to the dequantised one; the plan knows it by the old name.
        self._names = {id(v): name for name, v in ir.convenience.create_value_mapping(model.graph).items()}
        self._weights: dict[tuple[str, int], ir.Value] = {}
        self._parameters: dict[tuple[str, bytes], ir.Value] = {}

    def activation(self, value: ir.Value, replaced: bool) -> ir.Value:
        """Inserts Q → DQ behind `value` and returns the dequantised value; with `replaced`, everybody reads that
        one."""
        params = self._params(self._names[id(value)])
        producer = value.producer()
        scale, zero_point = self._scale(params), self._zero_point(params)
        quantize = ir.node("QuantizeLinear", [value, scale, zero_point], name=self.unique(f"{value.name}.quantize"))
        dequantize = ir.node(
            "DequantizeLinear", [quantize.outputs[0], scale, zero_point], name=self.unique(f"{value.name}.dequantize")
        )
        integers, result = quantize.outputs[0], dequantize.outputs[0]
        integers.name = self.unique(f"{value.name}.quantized")
        integers.dtype, integers.shape = INTEGERS[params.dtype], value.shape
        result.dtype, result.shape = ir.DataType.FLOAT, value.shape
        if replaced:
            is_output = value.is_graph_output()
            ir.convenience.replace_all_uses_with(value, result, replace_graph_outputs=True)
            quantize.replace_input_with(0, value)
            if is_output:  # the name belongs to the graph's output
                result.name, value.name = value.name, self.unique(f"{value.name}.float")
        if result.name is None:
            result.name = self.unique(f"{value.name}.dequantized")
        if producer is None:
            self._graph.insert_before(self._graph[0], [quantize, dequantize])
        else:
            self._graph.insert_after(producer, [quantize, dequantize])
        return result

    def rewire(self, site: Site, dequantized: dict[str, ir.Value]) -> None:
        """Makes `site` read integers: its activations, its weight, its bias."""
        for index, value in enumerate(site.node.inputs):
            if value is None:
                continue
            if value is site.weight:
                site.node.replace_input_with(index, self._weight(site))
            elif any(value is v for v in site.inputs) and not is_constant(value) and value.name in dequantized:
                site.node.replace_input_with(index, dequantized[value.name])
            elif any(value is v for v in site.inputs) and is_constant(value):
                site.node.replace_input_with(index, self._constant(site, value))
        if self._plan.operators == "onnxruntime" and self._gives_floats(site, dequantized):
            self._product_with_bias(site)
        elif site.bias is not None and self._form.bias:
            self._bias(site)
        if site.name in self._plan.padded:
            self._pad_channels(site)

    def finish(self) -> None:
        """Weights whose every reader went to integers are dead now; so are the old biases, and values that are read as
        integers only."""
        for node in list(self._graph):
            if node.op_type == "DequantizeLinear" and not (node.outputs[0].uses() or node.outputs[0].is_graph_output()):
                self._graph.remove(node, safe=True)
        drop_unread(self._graph)
        self._graph.sort()

    def _weight(self, site: Site) -> ir.Value:
        channels = self._plan.padded.get(site.name, 0)
        key = (site.weight_key, channels)
        if key not in self._weights:
            array = constant(site.weight)
            assert array is not None
            params = self._params(site.weight_key)
            scales = np.asarray(params.scale, np.float32)
            integers = quantize_weight(array, scales, site.weight_axis)
            if channels:
                integers = np.pad(integers, ((0, 0), (0, channels - integers.shape[1]), (0, 0), (0, 0)))
            name = site.weight.name if site.weight is not None else site.name
            self._weights[key] = self._dequantized(f"{name}", integers, scales, site.weight_axis, site.node)
        return self._weights[key]

    def _pad_channels(self, site: Site) -> None:
        """Gives the convolution more input channels, of zeros: integers that equal the zero point."""
        dequantize = site.node.inputs[0].producer() if site.node.inputs[0] is not None else None
        assert dequantize is not None
        integers, scale, zero_point = dequantize.inputs
        assert integers is not None
        array = constant(site.weight)
        assert array is not None
        more = self._plan.padded[site.name] - array.shape[1]
        amounts = self.parameter("pads", np.asarray([0, 0, 0, 0, 0, more, 0, 0], np.int64))
        pad = ir.node("Pad", [integers, amounts, zero_point], name=self.unique(f"{site.name}.channels"))
        pad.outputs[0].name = self.unique(f"{integers.name}.channels")
        pad.outputs[0].dtype = ir.DataType.UINT8
        if integers.shape is not None:
            pad.outputs[0].shape = ir.Shape([integers.shape[0], self._plan.padded[site.name], *integers.shape[2:]])
        back = ir.node("DequantizeLinear", [pad.outputs[0], scale, zero_point], name=self.unique(f"{pad.name}.float"))
        back.outputs[0].name = self.unique(f"{pad.outputs[0].name}.dequantized")
        back.outputs[0].dtype, back.outputs[0].shape = ir.DataType.FLOAT, pad.outputs[0].shape
        site.node.replace_input_with(0, back.outputs[0])
        self._graph.insert_before(site.node, [pad, back])

    def _bias(self, site: Site) -> None:
        array = constant(site.bias)
        assert array is not None
        assert site.bias is not None
        input_scale = self._params(self._names[id(site.inputs[0])]).scale[0]
        scales = np.asarray(self._params(site.weight_key).scale, np.float32)
        integers, product = quantize_bias(array.reshape(-1), input_scale, scales)
        node = next((n for n in site.absorbed if n.op_type == "Add"), site.node)
        result = self._dequantized(f"{site.bias.name}.{site.name}", integers, product, 0, node)
        for index, value in enumerate(node.inputs):
            if value is site.bias:
                node.replace_input_with(index, result)

    def _gives_floats(self, site: Site, dequantized: dict[str, ir.Value]) -> bool:
        """A MatMul with a bias whose result nobody reads as integers."""
        added = [n.op_type for n in site.absorbed]
        return site.node.op_type == "MatMul" and added == ["Add"] and site.outputs[0].name not in dequantized

    def _product_with_bias(self, site: Site) -> None:
        """MatMul and Add as one `com.microsoft.MatMulIntegerToFloat`, which takes the bias as floats.

        As QDQ, ONNX Runtime makes the same kernel of the MatMul alone, and dequantises and adds the bias behind it.
        """
        source, weight = (v.producer() for v in site.node.inputs[:2] if v is not None)
        bias = constant(site.bias)
        assert source is not None
        assert weight is not None
        assert bias is not None
        inputs = [source.inputs[0], weight.inputs[0], source.inputs[1], weight.inputs[1], source.inputs[2]]
        floats = self._initializer(f"{site.name}.bias", bias.reshape(-1).astype(np.float32))
        node = ir.node(
            "MatMulIntegerToFloat", [*inputs, weight.inputs[2], floats], domain="com.microsoft", name=site.name
        )
        replaced = [*site.absorbed, site.node]
        ir.convenience.replace_nodes_and_values(self._graph, site.node, replaced, [node], site.outputs, node.outputs)
        self._model.opset_imports.setdefault("com.microsoft", 1)

    def _constant(self, site: Site, value: ir.Value) -> ir.Value:
        """A number exactly; an array as the activation that it stands for, uint8 over its range."""
        array = constant(value)
        assert array is not None
        if array.size == 1:
            return self.number(site.node, float(array.reshape(())), array.shape)
        affine = from_range(float(array.min(initial=0.0)), float(array.max(initial=0.0)))
        integers = np.clip(np.rint(array / np.float32(affine.scale)) + affine.zero_point, 0, QMAX).astype(np.uint8)
        return self._stored(site.node, integers, affine)

    def number(self, near: ir.Node, value: float, shape: tuple[int, ...] = ()) -> ir.Value:
        """A number as one integer behind a DequantizeLinear, exactly, in front of `near`."""
        affine, integer = scalar_constant(value)
        return self._stored(near, np.full(shape, integer, np.uint8), affine)

    def _stored(self, near: ir.Node, integers: np.ndarray, affine: Affine) -> ir.Value:
        params = QParams(dtype="uint8", scale=(affine.scale,), zero_point=affine.zero_point)
        stored = self._initializer(f"{near.name}.constant.quantized", integers)
        node = ir.node(
            "DequantizeLinear",
            [stored, self._scale(params), self._zero_point(params)],
            name=self.unique(f"{stored.name}.dequantize"),
        )
        node.outputs[0].name = self.unique(f"{stored.name}.dequantized")
        self._graph.insert_before(near, [node])
        return node.outputs[0]

    def _dequantized(self, name: str, integers: np.ndarray, scales: np.ndarray, axis: int, before: ir.Node) -> ir.Value:
        stored = self._initializer(f"{name}.quantized", integers)
        scale = self._initializer(f"{name}.scale", scales.astype(np.float32))
        zero_point = self._initializer(f"{name}.zero_point", np.zeros(scales.shape, integers.dtype))
        node = ir.node(
            "DequantizeLinear", [stored, scale, zero_point], {"axis": axis}, name=self.unique(f"{name}.dequantize")
        )
        result = node.outputs[0]
        result.name = self.unique(f"{name}.dequantized")
        result.dtype, result.shape = ir.DataType.FLOAT, ir.Shape(integers.shape)
        self._graph.insert_before(before, [node])
        return result

    def _params(self, name: str) -> QParams:
        key = self._plan.ties.get(name, name)
        if key not in self._plan.tensors:
            raise PlanError(
                f"the plan has no parameters for tensor {printable(key)!r}",
                hint="a node that was float when the plan was made can't become INT8 by hand",
            )
        return self._plan.tensors[key]

    def _scale(self, params: QParams) -> ir.Value:
        return self.parameter("scale", np.asarray(params.scale[0], np.float32))

    def _zero_point(self, params: QParams) -> ir.Value:
        return self.parameter("zero_point", np.asarray(params.zero_point, ZERO_POINT_TYPES[params.dtype]))

    def parameter(self, kind: str, array: np.ndarray) -> ir.Value:
        """Equal scalars are stored once."""
        key = (f"{kind}:{array.dtype}", array.tobytes())
        if key not in self._parameters:
            self._parameters[key] = self._initializer(f"quantization.{kind}.{len(self._parameters)}", array)
        return self._parameters[key]

    def _initializer(self, name: str, array: np.ndarray) -> ir.Value:
        unique = self.unique(name)
        value = ir.val(unique, const_value=ir.tensor(array, name=unique))
        self._graph.register_initializer(value)
        return value

    def unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._taken:
            unique, count = f"{name}.{count}", count + 1
        self._taken.add(unique)
        return unique
