"""Each row of the kernel table against the installed ONNX Runtime.

The node is quantised between two convolutions, and the optimised graph is read."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import context, cosine, feeds, graph, run

from onnxcomp.model.normalize import normalize
from onnxcomp.ops.kernels import CPU_KERNELS, Role
from onnxcomp.ops.limits import minimum_ir_version
from onnxcomp.ops.upgrade import NEWEST_OPSET, TARGET_OPSET, lift
from onnxcomp.passes.quantize.quantize import Quantize
from onnxcomp.runtime.audit import operator_counts, optimized_graph

BETWEEN = {
    "Add": "b = Add(a, a2)",
    "Mul": "b = Mul(a, a2)",
    "Concat": "b = Concat<axis = 1>(a, a2)",
    "AveragePool": "b = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(a)",
    "GlobalAveragePool": "b = GlobalAveragePool(a)",
    "LeakyRelu": "b = LeakyRelu<alpha = 0.1>(a)",
    "Sigmoid": "b = Sigmoid(a)",
    "HardSigmoid": "b = HardSigmoid<alpha = 0.2, beta = 0.5>(a)",
    "HardSwish": "b = HardSwish(a)",
    "Pad": "s = Constant<value = int64[8] {0, 0, 1, 0, 0, 0, 0, 1}>() b = Pad(a, s)",
    "MaxPool": "b = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)",
    "Resize": 'r = Constant<value = float[4] {1.0, 1.0, 2.0, 2.0}>() b = Resize<mode = "nearest">(a, , r)',
    "Flatten": "f = Flatten(a) s = Constant<value = int64[4] {-1, 16, 8, 8}>() b = Reshape(f, s)",
    "Reshape": "s = Constant<value = int64[4] {0, 16, 4, 16}>() b = Reshape(a, s)",
    "Transpose": "b = Transpose<perm = [0, 1, 3, 2]>(a)",
    "Squeeze": "u = Constant<value = int64[1] {4}>() c = Unsqueeze(a, u) b = Squeeze(c, u)",
    "Unsqueeze": "u = Constant<value = int64[1] {4}>() c = Unsqueeze(a, u) b = Squeeze(c, u)",
    "Slice": (
        "s = Constant<value = int64[1] {1}>() e = Constant<value = int64[1] {5}>() "
        "x2 = Constant<value = int64[1] {2}>() b = Slice(a, s, e, x2)"
    ),
    "Gather": "i = Constant<value = int64[3] {0, 2, 4}>() b = Gather<axis = 2>(a, i)",
    "Split": "p, b0 = Split<axis = 2>(a) b = Add(p, b0)",
    "DepthToSpace": "d = DepthToSpace<blocksize = 2>(a) b = Concat<axis = 1>(d, d, d, d)",
    "Expand": "s = Constant<value = int64[4] {1, 1, 1, 1}>() b = Expand(a, s)",
    "Tile": "s = Constant<value = int64[4] {1, 1, 2, 1}>() b = Tile(a, s)",
}


def quantized(model, batch=1, *, padded=True, opset=TARGET_OPSET):
    items = feeds(model, batch=batch)
    ctx = context(items)
    canonical = normalize(model).model
    if lift(canonical, opset):
        canonical.ir_version = minimum_ir_version(opset)
    step = Quantize()
    plan = step.plan(canonical, ctx)
    plan = plan if padded else plan.model_copy(update={"padded": {}})
    return plan, step.apply(canonical, plan, ctx), items


@pytest.mark.parametrize("opset", [17, NEWEST_OPSET])
@pytest.mark.parametrize("op_type", sorted(k for k, row in CPU_KERNELS.items() if row.role is not Role.WEIGHTED))
def test_row_runs_in_integers_between_two_convolutions(op_type, opset):
    channels = 32 if op_type == "Concat" else 16
    model = graph(
        f"""g (float[1,16,8,8] x, float[16,16,1,1] w1, float[16] w1b, float[16,16,1,1] w2, float[16,{channels},1,1] w3)
            => (float[a,b,c,d] y) {{
            a = Conv(x, w1, w1b)
            a2 = Conv(x, w2)
            {BETWEEN[op_type]}
            y = Conv(b, w3)
        }}"""
    )
    plan, result, items = quantized(model, opset=opset)
    assert {d.precision for d in plan.nodes.values() if d.op_type == op_type} == {"int8"}
    counts = operator_counts(optimized_graph(result))
    row = CPU_KERNELS[op_type]
    floats = {
        "Conv",
        "com.microsoft:FusedConv",
        "com.microsoft.nchwc:Conv",
        "Add",
        "Mul",
        "Sigmoid",
        "LeakyRelu",
        "AveragePool",
        "HardSigmoid",
        "Clip",
    }
    assert not floats & set(counts), counts
    assert counts["QLinearConv"] + counts["com.microsoft:QLinearConv"] >= 2
    if row.role is Role.COMPUTED:
        assert counts[f"com.microsoft:{row.fused}"] >= 1, counts
    # One Q at the input, one DQ at the output: nothing is converted in the middle.
    assert counts["QuantizeLinear"] + counts["DequantizeLinear"] == 2, counts
    assert 0.98 < cosine(run(model, items[0])[0], run(result, items[0])[0]) < 1.0


@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.5), (1 / 6, 0.5), (1.0, 0.0), (0.3, -0.25)])
@pytest.mark.parametrize("call", ["g = HardSigmoid<alpha = {a}, beta = {b}>(a) h = Mul(a, g)", "h = HardSwish(a)"])
def test_hard_gates_as_integers_are_as_close_as_their_steps(call, alpha, beta):
    body = call.format(a=alpha, b=beta)
    model = graph(
        f"""g (float[1,16,8,8] x, float[16,16,1,1] w1, float[16,16,1,1] w2) => (float[1,16,8,8] y) {{
            a = Conv(x, w1) {body} y = Conv(h, w2)
        }}"""
    )
    _, result, items = quantized(model)
    counts = operator_counts(optimized_graph(result))
    assert counts["com.microsoft:QLinearAdd"] == counts["com.microsoft:QLinearMul"] == 1, counts
    assert 0.999 < cosine(run(model, items[0])[0], run(result, items[0])[0]) < 1.0


@pytest.mark.parametrize("channels", [1, 3, 6, 18])
def test_input_channels_are_padded_for_the_fast_kernel_without_changing_the_result(channels):
    model = graph(
        f"""g (float[1,{channels},9,9] x, float[16,{channels},3,3] w1, float[16] w1b) => (float[1,16,9,9] y)
            {{ y = Conv<pads = [1, 1, 1, 1]>(x, w1, w1b) }}"""
    )
    plan, result, items = quantized(model)
    assert plan.padded == {"Conv_y": -(-channels // 4) * 4}
    _, plain, _ = quantized(model, padded=False)
    np.testing.assert_array_equal(run(plain, items[0])[0], run(result, items[0])[0])
    assert operator_counts(result)["Pad"] == 1
    counts = operator_counts(optimized_graph(result))
    assert counts["QLinearConv"] + counts["com.microsoft:QLinearConv"] == 1, counts


@pytest.mark.parametrize("weight", ["15,3,3,3", "8,3,3,3", "16,4,3,3", "18,3,3,3"])
def test_channels_are_not_padded_where_the_fast_kernel_would_not_run_or_runs_anyway(weight):
    channels = weight.split(",")[1]
    plan, _, _ = quantized(
        graph(f"g (float[1,{channels},9,9] x, float[{weight}] w) => (float[a,b,c,d] y) {{ y = Conv(x, w) }}")
    )
    assert plan.padded == {}


@pytest.mark.parametrize("activation", ["Relu", "Clip06", "Clip11"])
def test_conv_absorbs_its_activation(activation):
    body = {
        "Relu": "y0 = Relu(c)",
        "Clip06": "lo = Constant<value = float {0.0}>() hi = Constant<value = float {6.0}>() y0 = Clip(c, lo, hi)",
        "Clip11": "lo = Constant<value = float {-1.0}>() hi = Constant<value = float {1.0}>() y0 = Clip(c, lo, hi)",
    }[activation]
    model = graph(
        f"""g (float[1,16,8,8] x, float[16,16,3,3] w1, float[16,16,1,1] w2) => (float[1,16,6,6] y) {{
            c = Conv(x, w1)
            {body}
            y = Conv(y0, w2)
        }}"""
    )
    _, result, items = quantized(model)
    counts = operator_counts(optimized_graph(result))
    assert "Relu" not in counts
    assert "Clip" not in counts
    assert counts["QuantizeLinear"] + counts["DequantizeLinear"] == 2, counts
    assert 0.98 < cosine(run(model, items[0])[0], run(result, items[0])[0]) < 1.0


@pytest.mark.parametrize("batch", ["1", "N"])
@pytest.mark.parametrize(
    ("body", "fused"),
    [
        ("y = Gemm<transB = 1>(x, w1, w1b)", {"com.microsoft:QGemm"}),
        ("y = Gemm<transB = 1>(x, w1)", {"com.microsoft:QGemm"}),
        ("m = MatMul(x, w1) y = Add(m, w1b)", {"com.microsoft:QGemm", "com.microsoft:MatMulIntegerToFloat"}),
        ("m = MatMul(x, w1) y = Relu(m)", {"com.microsoft:MatMulIntegerToFloat"}),
        ("m = Gemm(x, w1, w1b) y = Relu(m)", {"com.microsoft:QGemm"}),
        ("m = Gemm(x, w1, w1b) y = Tanh(m)", {"com.microsoft:QGemm"}),
        ("m = Gemm(x, w1) y = Sigmoid(m)", {"com.microsoft:QGemm"}),
        ("m = MatMul(x, w1) n = Add(m, w1b) y = Relu(n)", {"com.microsoft:QGemm", "com.microsoft:QLinearMatMul"}),
        ("m = MatMul(x, w1) n = Add(m, w1b) y = Sigmoid(n)", {"com.microsoft:QGemm", "com.microsoft:QLinearMatMul"}),
    ],
)
def test_matrix_product_before_float_operators_runs_in_integers(body, fused, batch):
    model = graph(f"g (float[{batch},32] x, float[32,32] w1, float[32] w1b) => (float[{batch},32] y) {{ {body} }}")
    _, result, items = quantized(model)
    counts = operator_counts(optimized_graph(result))
    assert fused & set(counts), counts
    assert not {"Gemm", "MatMul", "com.microsoft:FusedGemm"} & set(counts), counts
    assert 0.98 < cosine(run(model, items[0])[0], run(result, items[0])[0]) < 1.0


def test_add_with_relu_is_one_integer_kernel():
    model = graph(
        """g (float[1,16,8,8] x, float[16,16,1,1] w1, float[16,16,1,1] w2, float[16,16,1,1] w3) => (float[1,16,8,8] y) {
            a = Conv(x, w1)
            b = Conv(x, w2)
            s = Add(a, b)
            r = Relu(s)
            y = Conv(r, w3)
        }"""
    )
    _, result, _ = quantized(model)
    counts = operator_counts(optimized_graph(result))
    assert counts["com.microsoft:QLinearAdd"] == 1
    assert "Relu" not in counts
