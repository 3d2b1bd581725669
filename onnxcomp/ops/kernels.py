"""Which operators ONNX Runtime's CPU provider runs in integer arithmetic, and what each needs around it.

Source:
    `onnxruntime/core/optimizer/qdq_transformer/selectors_actions/{qdq_selector_action_transformer,qdq_selectors}.cc`
    and
`qdq_util.cc` of ONNX Runtime 1.31; every row is checked against the installed version in `tests/ops/test_kernels.py`,
which writes the quantised node, lets ONNX Runtime optimise it and counts the integer kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import onnx_ir as ir

from onnxcomp.ops.attributes import constant, float_attribute, int_attribute, ints_attribute, string_attribute


class Role(StrEnum):
    """What a node asks of the scales around it.

    WEIGHTED: activation × constant weight, accumulated in int32: the reason to quantise at all.
    COMPUTED: arithmetic on integers with a scale for each input and for the output.
    CARRIED: moves values and never changes them: input and output share one scale.
    """

    WEIGHTED = "weighted"
    COMPUTED = "computed"
    CARRIED = "carried"


Refusal = str | None
"""None: the form has a kernel. Otherwise the sentence that says why not."""


@dataclass(frozen=True)
class Kernel:
    """One row of the table.

    Args:
        role: See `Role`.
        fused: The operator that ONNX Runtime's optimised graph shows for it (the node's own type for CARRIED).
        data_inputs: Indices of the inputs that carry activations; `None` means all.
        output_quantized: The kernel exists only if its output is quantised too. Where False, the output may stay float.
        weight_axis: WEIGHTED: maps a node to the axis of its weight that holds output channels.
        check: Refuses forms that have no kernel.
        min_opset: Below it the row does not hold.
    """

    role: Role
    fused: str
    data_inputs: tuple[int, ...] | None = (0,)
    output_quantized: bool = True
    weight_axis: Callable[[ir.Node], int] | None = None
    check: Callable[[ir.Node], Refusal] = lambda node: None
    min_opset: int = 7


def _gemm_form(node: ir.Node) -> Refusal:
    if float_attribute(node, "alpha", 1.0) != 1.0 or float_attribute(node, "beta", 1.0) != 1.0:
        return "Gemm with alpha or beta other than 1 has no integer kernel"
    if int_attribute(node, "transA", 0):
        return "Gemm with transA=1 has no integer kernel"
    return None


def _matmul_form(node: ir.Node) -> Refusal:
    weight = node.inputs[1]
    if weight is not None and weight.shape is not None and weight.shape.rank() != 2:
        return f"the weight has rank {weight.shape.rank()}; per-column scales need a matrix"
    return None


def _average_pool_form(node: ir.Node) -> Refusal:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is not None and shape.rank() != 4:
        return "QLinearAveragePool is used for images (rank 4) only"
    if any(d != 1 for d in ints_attribute(node, "dilations", ())):
        return "AveragePool with dilations has no integer kernel"
    if int_attribute(node, "ceil_mode", 0):
        return "AveragePool with ceil_mode has no verified integer kernel"
    return None


def _max_pool_form(node: ir.Node) -> Refusal:
    if len(node.outputs) > 1:
        return "MaxPool with indices has no integer kernel"
    return None


def _nearest_only(node: ir.Node) -> Refusal:
    if string_attribute(node, "mode", "nearest") != "nearest":
        return "only nearest-neighbour Resize keeps its values"
    if string_attribute(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        return "a Resize that crops can write a value of its own"
    return None


def _hard_sigmoid_form(node: ir.Node) -> Refusal:
    if float_attribute(node, "alpha", 0.2) <= 0.0:
        return "HardSigmoid that falls has no integer form"
    return None


def _zero_pad_form(node: ir.Node) -> Refusal:
    fill = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    computed = len(node.inputs) > 2 and node.inputs[2] is not None and fill is None
    if string_attribute(node, "mode", "constant") != "constant" or computed or (fill is not None and fill.any()):
        return "only zeros can be padded with as integers"
    return None


def _no_axes(node: ir.Node) -> Refusal:
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is not None and shape.rank() != 4:
        return "the integer kernel is used for images (rank 4) only"
    return None


def _gemm_axis(node: ir.Node) -> int:
    return 0 if int_attribute(node, "transB", 0) else 1


CPU_KERNELS: dict[str, Kernel] = {
    "Conv": Kernel(Role.WEIGHTED, "QLinearConv", weight_axis=lambda node: 0),
    "Gemm": Kernel(Role.WEIGHTED, "QGemm", output_quantized=False, weight_axis=_gemm_axis, check=_gemm_form),
    "MatMul": Kernel(
        Role.WEIGHTED, "MatMulIntegerToFloat", output_quantized=False, weight_axis=lambda node: 1, check=_matmul_form
    ),
    "Add": Kernel(Role.COMPUTED, "QLinearAdd", data_inputs=(0, 1)),
    "Mul": Kernel(Role.COMPUTED, "QLinearMul", data_inputs=(0, 1)),
    "Concat": Kernel(Role.COMPUTED, "QLinearConcat", data_inputs=None),
    "AveragePool": Kernel(Role.COMPUTED, "QLinearAveragePool", check=_average_pool_form),
    "GlobalAveragePool": Kernel(Role.COMPUTED, "QLinearGlobalAveragePool", check=_no_axes),
    "LeakyRelu": Kernel(Role.COMPUTED, "QLinearLeakyRelu"),
    "Sigmoid": Kernel(Role.COMPUTED, "QLinearSigmoid"),
    "HardSigmoid": Kernel(Role.COMPUTED, "QLinearAdd", check=_hard_sigmoid_form),
    "HardSwish": Kernel(Role.COMPUTED, "QLinearMul"),
    "Pad": Kernel(Role.CARRIED, "Pad", check=_zero_pad_form, min_opset=13),
    "MaxPool": Kernel(Role.CARRIED, "MaxPool", check=_max_pool_form, min_opset=12),
    "Resize": Kernel(Role.CARRIED, "Resize", check=_nearest_only),
    "Flatten": Kernel(Role.CARRIED, "Flatten"),
    "Reshape": Kernel(Role.CARRIED, "Reshape"),
    "Transpose": Kernel(Role.CARRIED, "Transpose"),
    "Squeeze": Kernel(Role.CARRIED, "Squeeze"),
    "Unsqueeze": Kernel(Role.CARRIED, "Unsqueeze"),
    "Slice": Kernel(Role.CARRIED, "Slice"),
    "Gather": Kernel(Role.CARRIED, "Gather"),
    "Split": Kernel(Role.CARRIED, "Split"),
    "DepthToSpace": Kernel(Role.CARRIED, "DepthToSpace"),
    "Expand": Kernel(Role.CARRIED, "Expand"),
    "Tile": Kernel(Role.CARRIED, "Tile"),
}
"""Operators of ai.onnx with an integer form on the CPU provider. What is not here stays float.

HardSigmoid, HardSwish and Pad have no rule in ONNX Runtime's selectors: `passes/quantize/forms.py` writes them as what
has."""


def is_depthwise(node: ir.Node) -> bool:
    """A 2-D convolution with one filter for each channel, which has a kernel of its own (`mlas/lib/qdwconv*.cpp`)."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if node.op_type != "Conv" or weight is None or weight.const_value is None:
        return False
    shape = weight.const_value.numpy().shape
    return len(shape) == 4 and shape[1] == 1 and int_attribute(node, "group", 1) == shape[0] > 1


def padded_inputs(node: ir.Node, multiple: int, outputs: int) -> int:
    """Input channels that a convolution should have for the fast kernel; 0 where zeros bring nothing.

    Args:
        multiple: Of the input channels; `outputs`: of the output channels, of which there must be `FEWEST_OUTPUTS`.
    """
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    if node.op_type != "Conv" or weight is None or weight.const_value is None or int_attribute(node, "group", 1) != 1:
        return 0
    shape = weight.const_value.shape.numpy()
    if len(shape) != 4 or shape[0] < FEWEST_OUTPUTS or shape[0] % outputs or shape[1] % multiple == 0:
        return 0
    return -(-shape[1] // multiple) * multiple


FEWEST_OUTPUTS = 16
"""Output channels with which `MlasConvSym` runs at all."""


KEPT_FLOAT: dict[str, str] = {
    "Softmax": "QLinearSoftmax exists, but 8 bits are too coarse for probabilities and it is rarely faster",
    "Where": "QLinearWhere exists, but the masks around it are float",
}

ABSORBED_ACTIVATIONS: frozenset[str] = frozenset({"Relu", "Clip"})
"""Operators that a quantised Conv, Gemm or Add swallows when its output range already makes them redundant."""

FUSED_INTO_GEMM: frozenset[str] = frozenset(
    {"Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "Softplus", "Softsign", "Elu", "Selu", "ThresholdedRelu"}
)
"""Activations that ONNX Runtime fuses into a Gemm with float output before it looks for quantisation, so that the
integer kernel is lost (`gemm_activation_fusion.cc`): in front of them a Gemm's output must be quantised too."""

INTEGER_OPERATORS: frozenset[str] = frozenset(
    [
        "QLinearConv",
        "QGemm",
        "QLinearMatMul",
        "MatMulIntegerToFloat",
        "MatMulInteger",
        "ConvInteger",
        "QLinearAdd",
        "QLinearMul",
        "QLinearConcat",
        "QLinearAveragePool",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QLinearWhere",
        "QAttention",
        "QLinearReduceMean",
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
        "MatMulNBits",
        "NhwcMaxPool",
    ]
)
"""Operators of an optimised graph that compute on integers."""

HEAVY_OPERATORS: frozenset[str] = frozenset(
    [
        "Conv",
        "FusedConv",
        "NhwcFusedConv",
        "ConvTranspose",
        "Gemm",
        "FusedGemm",
        "MatMul",
        "FusedMatMul",
        "TransposeMatMul",
        "LSTM",
        "GRU",
        "RNN",
        "Attention",
        "MultiHeadAttention",
    ]
)
"""Float operators that hold most of the arithmetic: one of these left in an optimised INT8 graph deserves a reason."""

QUANTIZATION_OPERATORS: frozenset[str] = INTEGER_OPERATORS - {"NhwcMaxPool"} | {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
}
"""Operators whose presence means that a model is quantised already."""
