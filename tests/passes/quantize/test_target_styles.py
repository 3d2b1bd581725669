"""Where each target wants Q and DQ: structure, and the right numbers on the CPU."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import context, cosine, feeds, graph, run

from onnxcomp import errors, quantize
from onnxcomp.calibration.stream import Observed
from onnxcomp.evaluate.proof import check_structure
from onnxcomp.model.normalize import normalize
from onnxcomp.ops.attributes import constant, is_constant
from onnxcomp.ops.targets import TARGETS
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.quantize.quantize import Quantize
from onnxcomp.passes.quantize.ranges import mse
from onnxcomp.passes.quantize.styles import mirrored
from onnxcomp.report.reasons import Reason

RESIDUAL = """g (float[N,8,6,6] x, float[8,8,3,3] w1, float[8] w1b, float[8,8,1,1] w2, float[8,4] w3)
=> (float[N,4] y) {
    a = Conv<pads = [1, 1, 1, 1]>(x, w1, w1b)
    r = Relu(a)
    c = Conv(r, w2)
    s = Add(c, r)
    p = GlobalAveragePool(s)
    f = Flatten(p)
    y = Gemm(f, w3)
}"""


def quantized(text, target, opset=17):
    before = normalize(graph(text, opset=opset)).model
    items = feeds(before, 6)
    ctx = context(items, target)
    step = Quantize(QuantizeConfig(ranges="minmax"))
    plan = step.plan(before, ctx)
    after = step.apply(before, plan, ctx)
    assert check_structure(before, after, same_shapes=True) is None
    proof = step.prove(before, after, plan, ctx)
    assert proof.passed
    for feed in items:
        for y, z in zip(run(before, feed), run(after, feed), strict=True):
            assert cosine(y, z) > 0.99
            assert not np.array_equal(y, z)
    return plan, after, proof


def named(model, name):
    return next(n for n in model.graph if n.name == name)


def behind(value):
    return value.producer().op_type if value is not None and value.producer() is not None else None


def readers(value):
    return sorted(u.node.op_type for u in value.uses())


def test_tensorrt_products_read_symmetric_int8_and_weights_by_channel():
    _, after, _ = quantized(RESIDUAL, "tensorrt")
    for name in ("Conv_a", "Conv_c", "Gemm_y"):
        source, weight = named(after, name).inputs[:2]
        assert behind(source) == behind(weight) == "DequantizeLinear"
        assert behind(source.producer().inputs[0]) == "QuantizeLinear"
        for value, rank in ((source, 0), (weight, 1)):
            scale, zero_point = (constant(v) for v in value.producer().inputs[1:])
            assert zero_point.dtype == np.int8
            assert not zero_point.any()
            assert scale.ndim == rank


def test_tensorrt_biases_stay_float_and_nothing_says_what_a_product_writes():
    _, after, _ = quantized(RESIDUAL, "tensorrt")
    bias = named(after, "Conv_a").inputs[2]
    assert is_constant(bias)
    assert bias.const_value.dtype == ir.DataType.FLOAT
    assert readers(named(after, "Conv_a").outputs[0]) == ["Relu"]
    assert readers(named(after, "Conv_c").outputs[0]) == ["Add"]
    assert readers(named(after, "Relu_r").outputs[0]) == ["QuantizeLinear"], "both its readers are quantised"
    assert readers(named(after, "Gemm_y").outputs[0]) == []
    assert named(after, "Gemm_y").outputs[0].is_graph_output()


def test_tensorrt_a_residual_sum_reads_its_shortcut_as_integers_and_the_product_as_it_is():
    plan, after, _ = quantized(RESIDUAL, "tensorrt")
    product, shortcut = named(after, "Add_s").inputs
    assert behind(product) == "Conv"
    assert behind(shortcut) == "DequantizeLinear"
    assert plan.quantized() == {"Conv_a", "Conv_c", "Add_s", "Gemm_y"}
    left = {s.node: s.code for s in plan.left_alone()}
    assert left["GlobalAveragePool_p"] is Reason.KEPT_FLOAT


def test_tensorrt_a_sum_behind_no_product_stays_float():
    text = """g (float[N,8] x, float[8,8] w) => (float[N,8] y) {
        a = Tanh(x) b = Sigmoid(x) s = Add(a, b) y = MatMul(s, w) }"""
    plan, _, _ = quantized(text, "tensorrt")
    assert plan.quantized() == {"MatMul_y"}


def test_tensorrt_float_readers_of_what_a_product_reads_keep_the_float():
    text = "g (float[N,8] x, float[8,8] w) => (float[N,8] y, float[N,8] z) { y = MatMul(x, w) z = Tanh(x) }"
    before = normalize(graph(text)).model
    ctx = context(feeds(before, 3), "tensorrt")
    step = Quantize()
    after = step.apply(before, step.plan(before, ctx), ctx)
    assert named(after, "Tanh_z").inputs[0] is after.graph.inputs[0]
    assert behind(named(after, "MatMul_y").inputs[0]) == "DequantizeLinear"


@pytest.mark.parametrize("target", ["tensorrt", "qnn"])
def test_what_is_written_for_a_machine_that_is_not_here_is_standard_onnx_and_said_to_be_unverified(target):
    _, after, proof = quantized(RESIDUAL, target)
    assert {n.domain for n in after.graph} == {""}
    assert proof.audit is None
    assert proof.unfused == ()
    assert any("unverified here" in sentence for sentence in proof.sentences)


QNN = """g (float[N,8] x, float[8,8] w, float[8] wb, float[8] ws) => (float[N,8] y, float[N,8] t) {
    a = MatMul(x, w) b = Add(a, wb) t = Tanh(b) n = LayerNormalization(t, ws) y = Softmax(n)
}"""


@pytest.mark.parametrize("text", [QNN, RESIDUAL])
def test_qnn_every_float_stands_between_q_and_dq_from_the_inputs_to_the_outputs(text):
    plan, after, _ = quantized(text, "qnn")
    compute = [n for n in after.graph if n.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    assert {n.name for n in compute} - plan.quantized() <= {"Relu_r"}, "a Relu belongs to its product"
    for node in compute:
        if node.name == "Relu_r":
            continue
        assert {behind(v) for v in node.inputs if v is not None and v.dtype == ir.DataType.FLOAT} == {
            "DequantizeLinear"
        }
        used = readers(node.outputs[0])
        assert used in (["QuantizeLinear"], ["Relu"]), f"{node.name} is read by {used}"
    assert {behind(v) for v in after.graph.outputs} == {"DequantizeLinear"}
    assert readers(after.graph.inputs[0]) == ["QuantizeLinear"]


def test_qnn_activations_are_uint8_and_biases_int32():
    _, after, _ = quantized(RESIDUAL, "qnn")
    types = {n.outputs[0].dtype for n in after.graph if n.op_type == "QuantizeLinear"}
    assert types == {ir.DataType.UINT8}
    assert constant(named(after, "Conv_a").inputs[2].producer().inputs[0]).dtype == np.int32


def test_qnn_parameters_of_an_operator_are_no_tensors_of_values():
    text = """g (float[1,2,4,4] x, float[2,2,1,1] w, float[4] wscales) => (float[1,2,8,8] y)
        { a = Conv(x, w) y = Resize<mode = "linear">(a, , wscales) }"""
    before = normalize(graph(text, wscales=np.array([1, 1, 2, 2], np.float32))).model
    ctx = context(feeds(before, 3), "qnn")
    step = Quantize()
    plan = step.plan(before, ctx)
    after = step.apply(before, plan, ctx)
    assert "Resize_y" in plan.quantized()
    assert is_constant(named(after, "Resize_y").inputs[2])
    assert cosine(run(before, ctx.feed)[0], run(after, ctx.feed)[0]) > 0.99


def test_symmetric_ranges_are_chosen_for_symmetric_integers():
    values = np.abs(np.random.default_rng(0).laplace(size=100_000)).astype(np.float32)
    seen = Observed()
    seen.add(values)
    low, high = mse(mirrored(seen))
    assert low == -high

    def error(largest):
        scale = largest / 127
        return np.mean((np.clip(np.rint(values / scale), -127, 127) * scale - values) ** 2)

    assert error(high) < error(mse(seen)[1]), "the best end for 255 steps above zero is not that for 127"
    assert error(high) < error(float(values.max()))


def test_excluded_nodes_stay_float_on_every_target():
    for target in ("tensorrt", "qnn"):
        before = normalize(graph(RESIDUAL)).model
        ctx = context(feeds(before, 3), target)
        plan = Quantize().plan(before, type(ctx)(**{**vars(ctx), "exclude": ("Conv_c",)}))
        assert "Conv_c" not in plan.quantized()
        assert Reason.EXCLUDED in {s.code for s in plan.left_alone() if s.node == "Conv_c"}


def test_cuda_refuses_static_int8_with_the_reason_and_the_way_out():
    model = graph(RESIDUAL)
    with pytest.raises(errors.UsageError, match="no integer kernels") as raised:
        quantize(model, feeds(model, 6), target="cuda", threads=1)
    assert "--mode fp16" in (raised.value.hint or "")
    ctx = context(feeds(model, 6), "cuda")
    plan = Quantize().plan(normalize(model).model, ctx)
    assert not plan.changes()
    assert plan.skips[0].code is Reason.NO_INTEGER_KERNEL


def test_a_job_for_tensorrt_says_that_nothing_was_verified():
    model = graph(RESIDUAL)
    result = quantize(model, feeds(model, 10), target="tensorrt", threads=1)
    assert result.report.steps[0].changed == 4
    assert any("UNVERIFIED" in note.sentence for note in result.report.notes)
    assert not result.report.target_is_host


def test_every_target_of_the_contract_is_there():
    assert set(TARGETS) == {"cpu-vnni", "cpu-avx2", "arm64", "cuda", "tensorrt", "qnn"}
