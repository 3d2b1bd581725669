"""A small builder of ONNX models: every method adds nodes and returns the name of the value that they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TypeProto, helper, numpy_helper
from onnx.shape_inference import infer_node_outputs

Dim = int | str | None
Attribute: TypeAlias = "int | float | str | Sequence[int] | Sequence[float] | onnx.GraphProto | onnx.TensorProto"
CONTRIB = "com.microsoft"


class Net:
    """A model being built; weights are seeded, so that a builder always gives the same model.

    Shapes are inferred node by node, so that `conv(x, 64)` knows the width of x. Where ONNX can't infer one (contrib
    operators, shapes computed at run time), the caller states it.

    Args:
        opset: Of the default domain.
        parent: The model around a subgraph; names, random numbers and known shapes are shared with it.
    """

    def __init__(self, opset: int = 17, *, parent: Net | None = None) -> None:
        self.opset: int = parent.opset if parent else opset
        self.rng: np.random.Generator = parent.rng if parent else np.random.default_rng(0)
        self.types: dict[str, TypeProto] = parent.types if parent else {}
        self._names: list[str] = parent._names if parent else []
        self._small: dict[str, onnx.TensorProto] = parent._small if parent else {}
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[str] = []
        self._initializers: list[onnx.TensorProto] = []

    # Values

    def input(self, name: str, *shape: Dim, dtype: type = np.float32) -> str:
        self._inputs.append(name)
        self.types[name] = _tensor_type(np.dtype(dtype), shape)
        return name

    def const(self, array: np.ndarray) -> str:
        """An initializer with the values and the dtype of `array`."""
        name = self._fresh("w")
        tensor = numpy_helper.from_array(array, name)
        self._initializers.append(tensor)
        self.types[name] = _tensor_type(array.dtype, array.shape)
        if array.ndim == 1 and array.size <= 8:
            self._small[name] = tensor
        return name

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        return self.const(np.array(value, np.float32))

    def weight(self, *shape: int, fan_in: int | None = None) -> str:
        """Normal values of variance 2 / fan_in (He et al. 2015), by default the product of all axes but the first."""
        fan = fan_in or int(np.prod(shape[1:]))
        return self.const((self.rng.standard_normal(shape) * np.sqrt(2 / fan)).astype(np.float32))

    def small(self, *shape: int) -> str:
        """Values about 0, for biases."""
        return self.const((0.1 * self.rng.standard_normal(shape)).astype(np.float32))

    def positive(self, *shape: int) -> str:
        """Values between 0.5 and 1.5, for scales and variances."""
        return self.const(self.rng.uniform(0.5, 1.5, shape).astype(np.float32))

    def shape(self, value: str) -> tuple[Dim, ...]:
        dims = self.types[value].tensor_type.shape.dim
        return tuple(
            d.dim_value if d.HasField("dim_value") else (d.dim_param if d.HasField("dim_param") else None) for d in dims
        )

    def width(self, value: str, axis: int = 1) -> int:
        dim = self.shape(value)[axis]
        if not isinstance(dim, int):
            raise ValueError(f"axis {axis} of {value} is {dim!r}: state the shape")
        return dim

    # Nodes

    def nodes(
        self,
        op: str,
        *inputs: str,
        count: int,
        domain: str = "",
        shape: Sequence[Dim] | None = None,
        **attributes: Attribute,
    ) -> tuple[str, ...]:
        """A node with `count` outputs; `shape` states that of the first (float) where it can't be inferred."""
        outputs = tuple(self._fresh(op.lower()) for _ in range(count))
        node = helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", domain=domain, **attributes)
        self._nodes.append(node)
        if shape is not None:
            self.types[outputs[0]] = _tensor_type(np.dtype(np.float32), shape)
        elif not domain:
            self.types.update(self._infer(node))
        return outputs

    def node(
        self, op: str, *inputs: str, domain: str = "", shape: Sequence[Dim] | None = None, **attributes: Attribute
    ) -> str:
        return self.nodes(op, *inputs, count=1, domain=domain, shape=shape, **attributes)[0]

    def _infer(self, node: onnx.NodeProto) -> dict[str, TypeProto]:
        known = {name: self.types[name] for name in node.input if name in self.types}
        inferred: dict[str, TypeProto] = infer_node_outputs(
            onnx.defs.get_schema(node.op_type, self.opset, node.domain),
            node,
            known,
            {name: self._small[name] for name in known if name in self._small},
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=self._ir_version(),
        )
        return inferred

    def _fresh(self, stem: str) -> str:
        self._names.append(stem)
        return f"{stem}{len(self._names)}"

    # Layers

    def conv(
        self, x: str, out: int, k: int = 3, *, stride: int = 1, group: int = 1, dilation: int = 1, bias: bool = True
    ) -> str:
        """Convolution of x [N, C, spatial…] with a kernel of k along each spatial axis, padded to keep the size."""
        spatial = len(self.shape(x)) - 2
        weights = [self.weight(out, self.width(x) // group, *[k] * spatial)] + [self.small(out)] * bias
        strides, dilations, pads = ([v] * spatial for v in (stride, dilation, dilation * (k // 2)))
        return self.node("Conv", x, *weights, group=group, strides=strides, dilations=dilations, pads=pads * 2)

    def deconv(self, x: str, out: int, k: int = 2, *, stride: int = 2, group: int = 1) -> str:
        """Transposed convolution; its weight is [in, out / group, k, k]."""
        width = self.width(x)
        weight = self.weight(width, out // group, k, k, fan_in=width // group)
        return self.node("ConvTranspose", x, weight, self.small(out), strides=[stride] * 2, group=group)

    def bn(self, x: str) -> str:
        c = self.width(x)
        return self.node("BatchNormalization", x, self.positive(c), self.small(c), self.small(c), self.positive(c))

    def conv_bn(self, x: str, out: int, k: int = 3, *, stride: int = 1, group: int = 1) -> str:
        return self.bn(self.conv(x, out, k, stride=stride, group=group, bias=False))

    def gemm(self, x: str, out: int, *, width: int | None = None) -> str:
        """x [N, K] to [N, out], with the weight [out, K] of a PyTorch Linear."""
        k = width or self.width(x)
        return self.node("Gemm", x, self.weight(out, k), self.small(out), transB=1)

    def linear(self, x: str, out: int, *, width: int | None = None, bias: bool = True) -> str:
        """MatMul with a weight [K, out] over the last axis of x, and Add."""
        k = width or self.width(x, -1)
        y = self.node("MatMul", x, self.weight(k, out, fan_in=2 * k))
        return self.add(y, self.small(out)) if bias else y

    def classifier(self, x: str, classes: int = 10) -> str:
        """Global average pooling, Flatten and Gemm."""
        return self.gemm(self.node("Flatten", self.node("GlobalAveragePool", x)), classes)

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def silu(self, x: str) -> str:
        return self.mul(x, self.node("Sigmoid", x))

    def gelu(self, x: str) -> str:
        """x / 2 · (1 + erf(x / √2)), as PyTorch exports it below opset 20."""
        erf = self.node("Erf", self.node("Div", x, self.scalar(2**0.5)))
        return self.mul(self.mul(x, self.add(erf, self.scalar(1.0))), self.scalar(0.5))

    def add(self, a: str, b: str) -> str:
        return self.node("Add", a, b)

    def mul(self, a: str, b: str) -> str:
        return self.node("Mul", a, b)

    def concat(self, *values: str, axis: int = 1) -> str:
        return self.node("Concat", *values, axis=axis)

    def split(self, x: str, *sizes: int, axis: int = 1) -> tuple[str, ...]:
        return self.nodes("Split", x, self.ints(*sizes), count=len(sizes), axis=axis)

    def slice(self, x: str, start: int, end: int, *, axis: int = 1, step: int = 1) -> str:
        return self.node("Slice", x, self.ints(start), self.ints(end), self.ints(axis), self.ints(step))

    def reshape(self, x: str, *dims: int) -> str:
        return self.node("Reshape", x, self.ints(*dims))

    def transpose(self, x: str, *perm: int) -> str:
        return self.node("Transpose", x, perm=perm)

    def mean(self, x: str, *axes: int, keepdims: int = 1) -> str:
        if self.opset >= 18:
            return self.node("ReduceMean", x, self.ints(*axes), keepdims=keepdims)
        return self.node("ReduceMean", x, axes=axes, keepdims=keepdims)

    def layer_norm(self, x: str, *, width: int | None = None) -> str:
        d = width or self.width(x, -1)
        return self.node("LayerNormalization", x, self.positive(d), self.small(d), axis=-1, epsilon=1e-5)

    # Result

    def subgraph(self, name: str, *outputs: str) -> onnx.GraphProto:
        return helper.make_graph(
            self._nodes,
            name,
            [helper.make_value_info(i, self.types[i]) for i in self._inputs],
            [helper.make_value_info(o, self.types[o]) for o in outputs],
            self._initializers,
        )

    def build(self, *outputs: str) -> ir.Model:
        """The model. A leading dimension that Reshape's -1 hides from shape inference is N."""
        for output in outputs:
            shape = self.shape(output)
            if "N" not in shape and shape[0] is None:
                self.types[output].tensor_type.shape.dim[0].dim_param = "N"
        imports = [helper.make_opsetid("", self.opset)]
        if any(node.domain == CONTRIB for node in self._nodes):
            imports.append(helper.make_opsetid(CONTRIB, 1))
        graph = self.subgraph("topology", *outputs)
        model: ir.Model = ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=self._ir_version()))
        return model

    def _ir_version(self) -> int:
        least: int = helper.find_min_ir_version_for([helper.make_opsetid("", self.opset)])
        return max(8, least)


def _tensor_type(dtype: np.dtype, shape: Sequence[Dim]) -> TypeProto:
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(dtype), shape)
