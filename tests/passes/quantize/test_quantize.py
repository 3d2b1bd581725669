"""The INT8 pass on small graphs: numbers against ONNX Runtime on the float model, and the kernels that run."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import context, cosine, feeds, graph, reader, run
from quantize_cases import TWO, assert_integer, quantized

from onnxcomp.errors import DataError, PlanError, UsageError
from onnxcomp.model.load import load
from onnxcomp.model.normalize import normalize
from onnxcomp.model.save import save_model, serialize
from onnxcomp.ops.attributes import constant
from onnxcomp.passes.base import Evidence
from onnxcomp.passes.integer_weights import largest_pairs
from onnxcomp.passes.quantize.plan import QuantPlan
from onnxcomp.passes.quantize.quantize import Quantize
from onnxcomp.report.reasons import Reason


def test_residual_add_runs_in_integers_together_with_both_branches():
    found = quantized(
        graph(
            """g (float[N,16,8,8] x, float[16,16,3,3] w1, float[16] w1b, float[16,16,1,1] w2, float[16,16,1,1] w3)
                => (float[N,16,8,8] y) {
                a = Conv<pads = [1, 1, 1, 1]>(x, w1, w1b)
                r = Relu(a)
                b = Conv(r, w2)
                s = Add(b, r)
                y = Conv(s, w3)
            }"""
        )
    )
    assert_integer(found, {"QLinearConv": 3, "QLinearAdd": 1}, conversions=2)


def test_a_weight_that_two_convolutions_share_is_stored_once():
    found = quantized(
        graph(
            "g (float[N,16,8,8] x, float[16,16,1,1] w) "
            "=> (float[N,16,8,8] y) { a = Conv(x, w) r = Relu(a) y = Conv(r, w) }"
        )
    )
    assert_integer(found, {"QLinearConv": 2}, conversions=2)
    stored = [
        v
        for v in found.after.graph.initializers.values()
        if v.const_value.dtype == ir.DataType.INT8 and v.const_value.size == 256
    ]
    assert len(stored) == 1
    assert "w" not in found.after.graph.initializers


def test_a_shared_weight_with_two_biases_gets_a_scale_that_both_biases_fit():
    model = graph(
        """g (float[N,16,8,8] x, float[16,16,1,1] w, float[16] w1b, float[16] w2b) => (float[N,16,8,8] y) {
            a = Conv(x, w, w1b)
            r = Relu(a)
            y = Conv(r, w, w2b)
        }""",
        w=np.concatenate(
            [np.zeros((1, 16, 1, 1)), np.random.default_rng(0).standard_normal((15, 16, 1, 1)) / 4]
        ).astype(np.float32)
        + np.float32(1e-12),
        w2b=np.linspace(-500, 500, 16).astype(np.float32),
    )
    found = quantized(model)
    assert_integer(found, {"QLinearConv": 2}, conversions=2)
    biases = [constant(v) for v in found.after.graph.initializers.values() if v.const_value.dtype == ir.DataType.INT32]
    biases = [b for b in biases if b.any()]
    assert len(biases) == 2
    assert all(np.abs(b.astype(np.int64)).max() <= 2**30 * 1.001 for b in biases)


def test_a_convolution_output_that_is_a_graph_output_keeps_its_name_and_stays_close():
    found = quantized(
        graph(
            """g (float[N,16,8,8] x, float[16,16,1,1] w1, float[16,16,1,1] w2)
                => (float[N,16,8,8] a, float[N,16,8,8] y) {
                a = Conv(x, w1)
                y = Conv(a, w2)
            }"""
        )
    )
    assert [v.name for v in found.after.graph.outputs] == ["a", "y"]
    assert_integer(found, {"QLinearConv": 2}, conversions=3)


def test_a_graph_input_that_two_convolutions_and_a_float_operator_read_stays_float_for_the_latter():
    found = quantized(
        graph(
            """g (float[N,16,8,8] x, float[16,16,1,1] w1, float[16,16,1,1] w2)
                => (float[N,16,8,8] y, float[N,16,8,8] z) {
                a = Conv(x, w1)
                b = Conv(x, w2)
                y = Add(a, b)
                z = Tanh(x)
            }"""
        )
    )
    assert found.operators()["QLinearConv"] == 2
    tanh = next(n for n in found.after.graph if n.op_type == "Tanh")
    assert tanh.inputs[0].name == "x"
    np.testing.assert_array_equal(run(found.before, found.items[0])[1], run(found.after, found.items[0])[1])
    assert found.cosine() > 0.99


@pytest.mark.parametrize("shape", ["1,64,32", "N,T,32"])
def test_matmul_with_bias_runs_in_integers_with_static_and_dynamic_shapes(shape):
    model = graph(
        f"g (float[{shape}] x, float[32,32] w, float[32] wb) "
        f"=> (float[{shape}] y) {{ m = MatMul(x, w) y = Add(m, wb) }}"
    )
    found = quantized(model, batch=3)
    counts = found.operators()
    assert counts["QGemm"] + counts["MatMulIntegerToFloat"] == 1, counts
    assert not {"MatMul", "Gemm"} & set(counts)
    assert 0.999 < found.cosine() < 1.0


@pytest.mark.parametrize("flipped", [False, True])
def test_the_bias_of_a_matmul_may_be_either_operand_of_the_add(flipped):
    operands = "wb, m" if flipped else "m, wb"
    found = quantized(
        graph(
            f"g (float[N,32] x, float[32,32] w, float[32] wb) "
            f"=> (float[N,32] y) {{ m = MatMul(x, w) y = Add({operands}) }}"
        )
    )
    assert found.operators()["QGemm"] + found.operators()["MatMulIntegerToFloat"] == 1
    assert 0.999 < found.cosine() < 1.0


def test_a_bias_with_more_axes_than_the_product_keeps_the_shape_of_the_output():
    found = quantized(
        graph(
            "g (float[4,32] x, float[32,16] w, float[1,1,16] wb) "
            "=> (float[1,4,16] y) { m = MatMul(x, w) y = Add(m, wb) }"
        )
    )
    assert run(found.after, found.items[0])[0].shape == (1, 4, 16)
    assert found.cosine() > 0.999


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", ["[24]", "[1,24]"])
def test_gemm_runs_in_integers_with_either_layout_and_a_bias_of_one_value_for_each_column(transposed, bias):
    weight = "[24,32]" if transposed else "[32,24]"
    found = quantized(
        graph(
            f"g (float[N,32] x, float{weight} w, float{bias} wb) "
            f"=> (float[N,24] y) {{ y = Gemm<transB = {transposed}>(x, w, wb) }}"
        )
    )
    assert_integer(found, {"QGemm": 1}, conversions=1, at_least=0.999)


def test_gemm_with_a_scalar_bias_stays_float_and_says_why():
    found = quantized(graph("g (float[N,32] x, float[32,24] w, float[1] wb) => (float[N,24] y) { y = Gemm(x, w, wb) }"))
    assert found.skipped("Gemm") == {"unsupported-form"}
    assert found.plan.changes() == frozenset()
    assert serialize(found.after) == serialize(found.before)


@pytest.mark.parametrize(
    ("shape", "weight", "attributes"),
    [
        ("N,32,8,8", "32,8,3,3", "group = 4"),
        ("N,32,8,8", "32,1,3,3", "group = 32, pads = [1, 1, 1, 1]"),
        ("N,16,20", "16,16,3", "strides = [2]"),
        ("N,8,6,6,6", "8,8,3,3,3", "dilations = [1, 1, 1]"),
        ("N,16,9,9", "16,16,3,3", "strides = [2, 2], dilations = [2, 2]"),
        ("N,3,16,16", "16,3,3,3", "strides = [2, 2]"),
    ],
    ids=["grouped", "depthwise", "1D", "3D", "strided and dilated", "stem"],
)
def test_every_kind_of_convolution_runs_in_integers(shape, weight, attributes):
    dims = ",".join(["N", weight.split(",")[0], *"abc"[: shape.count(",") - 1]])
    model = graph(
        f"g (float[{shape}] x, float[{weight}] w, float[{weight.split(',')[0]}] wb) "
        f"=> (float[{dims}] y) {{ y = Conv<{attributes}>(x, w, wb) }}"
    )
    assert_integer(quantized(model), {"QLinearConv": 1}, conversions=2)


def test_relu6_is_absorbed_with_a_scale_of_at_most_6_over_255():
    model = graph(
        """g (float[N,16,8,8] x, float[16,16,3,3] w1, float[16,16,1,1] w2) => (float[N,16,6,6] y) {
            a = Conv(x, w1)
            lo = Constant<value = float {0.0}>()
            hi = Constant<value = float {6.0}>()
            c = Clip(a, lo, hi)
            y = Conv(c, w2)
        }"""
    )
    found = quantized(model, feeds(model, scale=20.0))
    params = found.plan.tensors["c"]
    assert np.float32(params.scale[0]) * np.float32(255) <= np.float32(6.0)
    assert params.scale[0] == pytest.approx(6 / 255, rel=1e-6)
    assert params.zero_point == 0
    assert_integer(found, {"QLinearConv": 2}, conversions=2)


def test_a_squeeze_and_excite_block_is_integer_from_end_to_end():
    found = quantized(
        graph(
            """g (float[N,16,8,8] x, float[16,16,3,3] w0, float[8,16,1,1] w1, float[16,8,1,1] w2, float[16,16,1,1] w3)
                => (float[N,16,6,6] y) {
                a = Conv(x, w0)
                p = GlobalAveragePool(a)
                q = Conv(p, w1)
                r = Relu(q)
                s = Conv(r, w2)
                t = Sigmoid(s)
                m = Mul(a, t)
                y = Conv(m, w3)
            }"""
        )
    )
    kernels = {"QLinearConv": 4, "QLinearGlobalAveragePool": 1, "QLinearSigmoid": 1, "QLinearMul": 1}
    assert_integer(found, kernels, conversions=2, at_least=0.98)


def test_silu_is_an_integer_sigmoid_and_an_integer_product():
    found = quantized(
        graph(
            """g (float[N,16,8,8] x, float[16,16,1,1] w1, float[16,16,1,1] w2) => (float[N,16,8,8] y) {
                a = Conv(x, w1)
                s = Sigmoid(a)
                m = Mul(a, s)
                y = Conv(m, w2)
            }"""
        )
    )
    assert_integer(found, {"QLinearConv": 2, "QLinearSigmoid": 1, "QLinearMul": 1}, conversions=2, at_least=0.98)


def test_concatenated_tensors_keep_their_own_scales():
    found = quantized(
        graph(
            """g (float[N,16,8,8] x, float[16,16,1,1] w1, float[16,16,1,1] w2, float[16,32,1,1] w3)
                => (float[N,16,8,8] y) {
                a = Conv(x, w1)
                b = Conv(x, w2)
                c = Concat<axis = 1>(a, b)
                y = Conv(c, w3)
            }""",
            w2=np.random.default_rng(0).standard_normal((16, 16, 1, 1)).astype(np.float32) * 20,
        )
    )
    assert_integer(found, {"QLinearConv": 3, "QLinearConcat": 1}, conversions=2)
    assert found.plan.tensors["b"].scale[0] > 10 * found.plan.tensors["a"].scale[0]


def test_a_model_of_opset_11_is_lifted_so_that_its_weights_get_a_scale_for_each_channel():
    model = graph(
        "g (float[1,16,8,8] x, float[16,16,1,1] w) => (float[1,16,8,8] y) { y = Conv(x, w) }", opset=11, ir_version=6
    )
    found = quantized(model)
    assert found.after.opset_imports[""] >= 13
    assert len(found.plan.tensors["w@0"].scale) == 16
    assert_integer(found, {"QLinearConv": 1}, conversions=2)


def test_weights_in_an_external_file_are_quantised_like_those_in_the_graph(tmp_path):
    model = graph(
        "g (float[N,16,8,8] x, float[16,16,3,3] w, float[16] wb) => (float[N,16,6,6] y) { y = Conv(x, w, wb) }"
    )
    save_model(model, tmp_path / "m.onnx", external=True)
    assert list(tmp_path.glob("*.data"))
    outside, inside = quantized(load(tmp_path / "m.onnx").model), quantized(model)
    assert_integer(outside, {"QLinearConv": 1}, conversions=2)
    np.testing.assert_array_equal(run(outside.after, inside.items[0])[0], run(inside.after, inside.items[0])[0])


def test_weights_inside_an_if_body_are_reported_and_left_alone():
    found = quantized(
        graph(
            """g (float[1,16,8,8] x, bool c, float[16,16,1,1] w1, float[16,16,1,1] w2) => (float[1,16,8,8] y) {
                a = Conv(x, w1)
                b = Relu(a)
                y = If (c) <
                    then_branch = then () => (float[1,16,8,8] p) { p = Conv(b, w2) },
                    else_branch = other () => (float[1,16,8,8] q) { q = Identity(b) }
                >
            }"""
        ),
        [
            {
                "x": np.random.default_rng(i).standard_normal((1, 16, 8, 8)).astype(np.float32),
                "c": np.array(bool(i % 2)),
            }
            for i in range(4)
        ],
    )
    assert {s.code for s in found.plan.skips} == {Reason.INSIDE_SUBGRAPH}
    assert found.operators()["QLinearConv"] == 1
    assert found.cosine() > 0.99


def test_an_activation_inside_an_if_body_is_not_absorbed_by_a_convolution_outside():
    found = quantized(
        graph(
            """g (float[1,16,8,8] x, bool c, float[16,16,1,1] w1) => (float[1,16,8,8] y) {
                a = Conv(x, w1)
                y = If (c) <
                    then_branch = then () => (float[1,16,8,8] p) { p = Relu(a) },
                    else_branch = other () => (float[1,16,8,8] q) { q = Neg(x) }
                >
            }"""
        ),
        [
            {"x": np.random.default_rng(i).standard_normal((1, 16, 8, 8)).astype(np.float32), "c": np.array(i > 0)}
            for i in range(4)
        ],
    )
    assert found.operators()["QLinearConv"] == 1
    assert found.cosine() > 0.99


def test_an_operator_of_another_domain_is_reported():
    found = quantized(
        graph(
            """g (float[N,16,8,8] x, float[16,16,1,1] w1) => (float[N,16,8,8] y) {
                a = Conv(x, w1)
                y = com.microsoft.QuickGelu<alpha = 1.0>(a)
            }"""
        )
    )
    assert found.skipped("com.microsoft:QuickGelu") == {"unknown-operator"}
    assert found.operators()["QLinearConv"] == 1


def test_a_model_that_is_quantised_already_is_refused_as_a_whole():
    once = quantized(graph("g (float[N,16,8,8] x, float[16,16,1,1] w) => (float[N,16,8,8] y) { y = Conv(x, w) }"))
    twice = quantized(once.after)
    assert [s.code for s in twice.plan.skips] == [Reason.ALREADY_QUANTIZED]
    assert twice.plan.changes() == frozenset()
    assert serialize(twice.after) == serialize(twice.before)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["w1", "w1b"])
@pytest.mark.parametrize("activation", ["Relu", "Neg"])
def test_a_constant_that_is_not_finite_leaves_its_node_in_float(bad, place, activation):
    arrays = {"w1": np.full((16, 16, 1, 1), 0.1, np.float32), "w1b": np.zeros(16, np.float32)}
    arrays[place].flat[3] = bad
    found = quantized(
        graph(
            f"""g (float[N,16,8,8] x, float[16,16,1,1] w0, float[16,16,1,1] w1, float[16] w1b, float[16,16,1,1] w2,
                float[16] w2b)
                => (float[N,16,8,8] y, float[N,16,8,8] z) {{
                z = Conv(x, w0)
                a = Conv(x, w1, w1b)
                b = {activation}(a)
                c = Transpose<perm = [0, 1, 3, 2]>(b)
                y = Conv(c, w2, w2b)
            }}""",
            **arrays,
        )
    )
    assert "not-finite" in found.skipped("Conv")
    assert found.plan.nodes["Conv_z"].precision == "int8"
    assert cosine(run(found.before, found.items[0])[1], run(found.after, found.items[0])[1]) > 0.99


def test_a_finite_range_behind_an_infinite_weight_is_still_written():
    # Clip hides the infinity: the convolution stays float, and the one behind it gets the range of the tensor between
    # them.
    weight = np.full((16, 16, 1, 1), 0.1, np.float32)
    weight[2, 3] = np.inf
    found = quantized(
        graph(
            """g (float[N,16,8,8] x, float[16,16,1,1] w1, float[16,16,1,1] w2, float[16] w2b) => (float[N,16,8,8] y) {
                a = Conv(x, w1)
                lo = Constant<value = float {0.0}>()
                hi = Constant<value = float {6.0}>()
                b = Clip(a, lo, hi)
                c = Transpose<perm = [0, 1, 3, 2]>(b)
                y = Conv(c, w2, w2b)
            }""",
            w1=weight,
        ),
        [
            {"x": np.abs(np.random.default_rng(i).standard_normal((1, 16, 8, 8))).astype(np.float32) + 0.1}
            for i in range(3)
        ],
    )
    assert "not-finite" in found.skipped("Conv")
    assert found.plan.nodes["Conv_y"].precision == "int8"
    assert found.operators()["QLinearConv"] == 1
    assert found.cosine() > 0.99


def test_a_nan_in_the_calibration_data_leaves_what_it_reaches_in_float():
    model = graph("g (float[N,16,8,8] x, float[16,16,1,1] w1) => (float[N,16,8,8] y) { y = Conv(x, w1) }")
    items = feeds(model)
    items[2]["x"][0, 3, 4, 5] = np.nan
    found = quantized(model, items)
    assert found.skipped("Conv") == {"not-finite"}
    assert found.plan.changes() == frozenset()


def test_channels_of_zeros_and_an_empty_weight_do_no_harm():
    weight = np.random.default_rng(0).standard_normal((16, 16, 1, 1)).astype(np.float32)
    weight[[0, 5]] = 0.0
    found = quantized(
        graph(
            "g (float[N,16,8,8] x, float[16,16,1,1] w, float[16] wb) => (float[N,16,8,8] y) { y = Conv(x, w, wb) }",
            w=weight,
        )
    )
    assert_integer(found, {"QLinearConv": 1}, conversions=2)
    # A channel without weights is its bias: within half a step of the output.
    y = run(found.after, found.items[0])[0]
    assert (
        np.abs(y[:, 0] - constant(found.before.graph.initializers["wb"])[0]).max()
        <= found.plan.tensors["y"].scale[0] * 0.51
    )

    empty = quantized(graph("g (float[N,4] x, float[4,0] w) => (float[N,0] y) { y = MatMul(x, w) }"))
    assert empty.skipped("MatMul") == {"unsupported-form"}


def test_a_tensor_that_is_empty_in_every_feed_is_not_observed_and_its_reader_stays_float():
    found = quantized(
        graph(
            """g (float[N,16] x, int64[K] keep, float[16,8] w1, float[16,8] w2) => (float[K,8] y, float[N,8] z) {
                k = Gather<axis = 0>(x, keep)
                t = Tanh(k)
                y = MatMul(t, w1)
                z = MatMul(x, w2)
            }"""
        ),
        [
            {"x": f["x"], "keep": np.zeros(0, np.int64)}
            for f in feeds(graph("g (float[2,16] x) => (float[2,16] y) { y = Neg(x) }"))
        ],
    )
    assert found.skipped("MatMul") == {"not-observed"}
    assert found.operators()["MatMulIntegerToFloat"] == 1


@pytest.mark.parametrize(
    ("only", "exclude", "kept"),
    [(("Conv_a",), (), {"Conv_a"}), ((), ("Conv_a",), {"Conv_y"}), (("Conv",), ("*_y",), {"Conv_a"})],
)
def test_only_and_exclude_choose_nodes_by_name_or_type(only, exclude, kept):
    from dataclasses import replace

    model = normalize(graph(TWO)).model
    items = feeds(model)
    ctx = replace(context(items), only=only, exclude=exclude)
    plan = Quantize().plan(model, ctx)
    assert plan.changes() == kept
    assert {s.code for s in plan.left_alone() if s.op_type == "Conv"} <= {Reason.EXCLUDED, Reason.NOT_SELECTED}
    assert len(plan.left_alone()) == 1
    assert cosine(run(model, items[0])[0], run(Quantize().apply(model, plan, ctx), items[0])[0]) > 0.99


def test_weights_for_a_machine_without_vnni_leave_room_for_the_sum_of_two_neighbours():
    found = quantized(graph(TWO), target="cpu-avx2")
    stored = [constant(v) for v in found.after.graph.initializers.values() if v.const_value.dtype == ir.DataType.INT8]
    weights = [a for a in stored if a.ndim == 4]
    assert [largest_pairs(a.astype(float), 0).max() <= 128 for a in weights] == [True, True]
    assert max(np.abs(a.astype(int)).max() for a in weights) > 64
    assert found.cosine() > 0.99


def test_two_runs_and_a_plan_through_json_give_the_same_bytes():
    first, second = quantized(graph(TWO)), quantized(graph(TWO))
    assert serialize(first.after) == serialize(second.after)
    replayed = QuantPlan.model_validate_json(first.plan.model_dump_json())
    assert replayed == first.plan
    assert serialize(Quantize().apply(first.before, replayed, first.ctx)) == serialize(first.after)


def test_applying_a_plan_does_not_change_the_model_that_it_was_given():
    found = quantized(graph(TWO))
    before = serialize(found.before)
    Quantize().apply(found.before, found.plan, found.ctx)
    assert serialize(found.before) == before


def test_no_calibration_data_is_a_usage_error_and_an_empty_set_a_data_error():
    from dataclasses import replace

    model = normalize(graph(TWO)).model
    ctx = context(feeds(model))
    with pytest.raises(UsageError, match="calibration"):
        Quantize().plan(model, replace(ctx, calibration=None))
    with pytest.raises(DataError, match="empty"):
        Quantize().plan(model, replace(ctx, calibration=reader([])))


def test_planning_and_writing_do_the_same_for_each_of_a_thousand_nodes():
    def made(count):
        body = "t0 = Conv(x, w0) " + " ".join(f"t{i} = Conv(t{i - 1}, w0)" for i in range(1, count))
        return quantized(
            graph(
                f"g (float[1,4,2,2] x, float[4,4,1,1] w0) => (float[1,4,2,2] t{count - 1}) {{ {body} }}",
                w0=np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1),
            ),
            [{"x": np.ones((1, 4, 2, 2), np.float32)}],
        )

    half, whole = made(500), made(1000)
    assert len(whole.plan.changes()) == 2 * len(half.plan.changes()) == 1000
    # Each convolution adds itself and one pair of conversions; what is shared (one weight, one input) is there once.
    assert len(whole.after.graph) - len(half.after.graph) == 500 * 3
    assert len(whole.after.graph.initializers) - len(half.after.graph.initializers) <= 2


def test_one_convolution_equals_the_integer_arithmetic_in_numpy_within_one_step():
    found = quantized(
        graph("g (float[N,16,8,8] x, float[24,16,1,1] w, float[24] wb) => (float[N,24,8,8] y) { y = Conv(x, w, wb) }")
    )
    x, weight, bias = found.items[0]["x"], *(constant(found.before.graph.initializers[n]) for n in ("w", "wb"))
    px, pw, py = (found.plan.tensors[n] for n in ("x", "w@0", "y"))
    qx = np.clip(np.rint(x / np.float32(px.scale[0])) + px.zero_point, 0, 255).astype(np.int64) - px.zero_point
    sw = np.array(pw.scale, np.float64)
    qw = np.rint(weight[:, :, 0, 0] / sw[:, None]).astype(np.int64)
    qb = np.rint(bias / (px.scale[0] * sw)).astype(np.int64)
    accumulated = np.einsum("oc,nchw->nohw", qw, qx) + qb[None, :, None, None]
    factor = px.scale[0] * sw / py.scale[0]
    qy = np.clip(np.rint(accumulated * factor[None, :, None, None]) + py.zero_point, 0, 255) - py.zero_point
    steps = np.abs(run(found.after, found.items[0])[0] / py.scale[0] - qy)
    assert steps.max() < 1.01
    assert (steps > 0.5).mean() < 0.01


def test_relaxing_gives_back_the_worst_nodes_and_ends_before_nothing_is_left():
    found = quantized(graph(TWO))
    step = Quantize()
    fused = step.relax(found.plan, Evidence("fusion", nodes=("Conv_a",)))
    assert fused is not None
    assert fused.changes() == {"Conv_y"}
    assert next(s for s in fused.left_alone() if s.node == "Conv_a").code is Reason.NOT_FUSED
    assert step.relax(fused, Evidence("fusion", nodes=("Conv_y",))) is None
    assert step.relax(found.plan, Evidence("proof")) is None


@pytest.mark.parametrize("product", ["Gemm(x, w1, w1b)", "Gemm(x, w1)", "MatMul(x, w1)"])
@pytest.mark.parametrize("other", ["Tanh(y)", "Identity(y)"])
def test_a_matrix_product_that_integers_and_floats_read_is_an_integer_kernel(product, other):
    found = quantized(
        graph(
            f"""g (float[N,32] x, float[32,32] w1, float[32] w1b, float[32,32] w2) => (float[N,32] u, float[N,32] z) {{
                y = {product}
                u = {other}
                z = MatMul(y, w2)
            }}"""
        )
    )
    counts = found.operators()
    assert not {"Gemm", "MatMul"} & set(counts), counts
    assert counts["QGemm"] + counts["QLinearMatMul"] + counts["MatMulIntegerToFloat"] == 2
    assert found.cosine() > 0.99


def test_a_model_that_stays_below_opset_13_is_left_alone_with_the_reason():
    model = graph(
        """g (float[1,16,8,8] x, float[16,16,1,1] w, float[8] wroi, float[4] wscales) => (float[a,b,c,d] y) {
            a = Conv(x, w)
            y = Resize<mode = "nearest", coordinate_transformation_mode = "tf_half_pixel_for_nn">(a, wroi, wscales)
        }""",
        opset=11,
        ir_version=6,
        wroi=np.zeros(8, np.float32),
        wscales=np.array([1, 1, 2, 2], np.float32),
    )
    found = quantized(model)
    assert found.before.opset_imports[""] == 11
    assert found.plan.changes() == frozenset()
    assert {s.code for s in found.plan.skips} == {Reason.OPSET}


def test_a_resize_that_writes_a_value_of_its_own_stays_float():
    found = quantized(
        graph(
            """g (float[1,16,8,8] x, float[16,16,1,1] w1, float[16,16,1,1] w2, float[8] wroi, float[4] wscales)
                => (float[a,b,c,d] y) {
                a = Conv(x, w1)
                r = Resize<
                    mode = "nearest", coordinate_transformation_mode = "tf_crop_and_resize", extrapolation_value = 30.0
                >(a, wroi, wscales)
                y = Conv(r, w2)
            }""",
            wroi=np.array([0, 0, 0, 0, 1, 1, 1.5, 1.5], np.float32),
            wscales=np.array([1, 1, 2, 2], np.float32),
        )
    )
    assert found.skipped("Resize") == {"unsupported-form"}
    assert found.cosine() > 0.99


def test_a_plan_edited_into_one_that_misses_a_scale_is_a_plan_error():
    found = quantized(graph(TWO))
    edited = found.plan.model_copy(update={"tensors": {}})
    with pytest.raises(PlanError, match="no parameters for tensor 'x'"):
        Quantize().apply(found.before, edited, found.ctx)


def test_a_node_that_loses_its_int8_neighbours_by_an_edit_is_not_converted_in_vain():
    found = quantized(
        graph(
            """g (float[N,16,8,8] x, float[16,16,1,1] w1, float[16,16,1,1] w2, float[16,16,1,1] w3, float[16,16,1,1] w4)
                => (float[N,16,8,8] y, float[N,16,8,8] z) {
                a = Conv(x, w1)
                b = Conv(x, w2)
                s = Add(a, b)
                y = Conv(s, w3)
                z = Conv(x, w4)
            }"""
        )
    )
    assert "Add_s" in found.plan.changes()
    edited = found.plan.with_float(frozenset({"Conv_a", "Conv_b", "Conv_y"}), Reason.RELAXED, "by hand")
    result = Quantize().apply(found.before, edited, found.ctx)
    assert {n.inputs[0].producer().op_type for n in result.graph if n.op_type == "Add"} == {"Conv"}


def test_a_plan_that_names_a_node_which_is_not_there_is_refused_with_the_nearest_name():
    found = quantized(graph(TWO))
    name = next(iter(found.plan.quantized()))
    nodes = {f"{n}x" if n == name else n: decision for n, decision in found.plan.nodes.items()}
    with pytest.raises(PlanError, match=f"'{name}x' is not in the model") as raised:
        Quantize().apply(found.before, found.plan.model_copy(update={"nodes": nodes}), found.ctx)
    assert f"'{name}'" in (raised.value.hint or "")
