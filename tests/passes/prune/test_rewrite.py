"""What the edit writes: sliced weights, and every number of channels anew."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import feeds, graph, run
from prune_topologies import feed_of
from pruning import analysed, random_keep, studied, zeroed

from onnxcomp.passes.prune.analysis import Analysis
from onnxcomp.passes.prune.rewrite import Kept, rewrite

MLP = "g (float[N,6] x, float[6,8] w1, float[8,2] w2) => (float[N,2] y) { h = MatMul(x, w1) y = MatMul(h, w2) }"


def _half(model: ir.Model, analysis: Analysis) -> tuple[ir.Model, Kept]:
    """Every other class goes."""
    assert analysis.structure.cells
    return rewrite(model, analysis, {c.name: np.arange(0, c.size, 2) for c in analysis.structure.cells})


def _shape(model: ir.Model, name: str) -> list[int]:
    return list(model.graph.initializers[name].const_value.shape.numpy())


def test_weights_lose_the_slices_and_the_argument_keeps_them():
    model, analysis = studied(graph(MLP))
    before = {name: v.const_value.numpy().copy() for name, v in model.graph.initializers.items()}
    pruned, kept = _half(model, analysis)
    np.testing.assert_array_equal(pruned.graph.initializers["w1"].const_value.numpy(), before["w1"][:, ::2])
    np.testing.assert_array_equal(pruned.graph.initializers["w2"].const_value.numpy(), before["w2"][::2])
    assert all(np.array_equal(model.graph.initializers[n].const_value.numpy(), a) for n, a in before.items())
    assert kept["h"][1].tolist() == [0, 2, 4, 6]
    assert pruned.graph.num_nodes() == 2


def test_a_scalar_stays_a_scalar():
    """np.ascontiguousarray makes a vector of it, and y changes its rank."""
    model, analysis = studied(
        graph(
            """g (float[N,6] x, float[6,8] w1, float w_s, float[8,2] w2) => (float[N,2] y)
            { h = MatMul(x, w1) k = Mul(h, w_s) y = MatMul(k, w2) }"""
        )
    )
    pruned, _ = _half(model, analysis)
    assert _shape(pruned, "w_s") == []
    assert _shape(pruned, "w1") == [6, 4]


def test_the_scales_of_a_resize_are_no_weights():
    model, analysis = studied(
        graph(
            """g (float[N,3,4,4] x, float[4,3,1,1] w1, float[4] w_scales, float[2,4,1,1] w2) => (float[N,2,8,8] y)
            { a = Conv(x, w1) b = Resize<mode="nearest">(a, , w_scales) y = Conv(b, w2) }""",
            w_scales=np.array([1, 1, 2, 2], np.float32),
        )
    )
    pruned, _ = _half(model, analysis)
    assert pruned.graph.initializers["w_scales"].const_value.numpy().tolist() == [1, 1, 2, 2]
    assert _shape(pruned, "w1") == [2, 3, 1, 1]


def test_a_shape_that_two_reshapes_share_is_written_for_each():
    model, analysis = studied(
        graph(
            """g (float[N,6] x, float[6,8] w1, float[6,8] w2, int64[3] w_to, float[2,2] w3)
                => (float[N,4,2] y, float[N,4,2] z) {
                a = MatMul(x, w1) p = Reshape(a, w_to) y = MatMul(p, w3)
                b = MatMul(x, w2) z = Reshape(b, w_to) }""",
            w_to=np.array([-1, 4, 2]),
        )
    )
    assert len(analysis.structure.cells) == 1
    pruned, _ = _half(model, analysis)
    targets = [n.inputs[1].const_value.numpy().tolist() for n in pruned.graph if n.op_type == "Reshape"]
    assert targets == [[-1, 4, 1], [-1, 4, 2]]
    assert [y.shape for y in run(pruned, feeds(model, 1, batch=3)[0])] == [(3, 4, 2), (3, 4, 2)]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize(("start", "end", "step"), [(0, 4, 1), (4, 8, 1), (-4, 2**31 - 1, 1), (1, 8, 2), (-1, -9, -2)])
def test_slices_take_what_stays_of_their_range(dtype: type, start: int, end: int, step: int):
    kind = "int32" if dtype is np.int32 else "int64"
    model, analysis = studied(
        graph(
            f"""g (float[N,6] x, float[6,8] w1, {kind}[1] w_a, {kind}[1] w_b, {kind}[1] w_c, {kind}[1] w_d,
                float[4,2] w2) => (float[N,2] y) {{
                a = MatMul(x, w1) b = Slice(a, w_a, w_b, w_c, w_d) y = MatMul(b, w2) }}""",
            w_a=np.array([start], dtype),
            w_b=np.array([end], dtype),
            w_c=np.array([1], dtype),
            w_d=np.array([step], dtype),
        )
    )
    for seed in range(5):
        pruned, kept = rewrite(model, analysis, random_keep(analysis, 0.5, seed))
        assert kept["b"][1] is None or len(kept["b"][1]) < 4
        x = feeds(model, 1, batch=3)[0]
        np.testing.assert_allclose(run(pruned, x)[0], run(zeroed(model, kept), x)[0], rtol=1e-5, atol=1e-5)
        node = next(n for n in pruned.graph if n.op_type == "Slice")
        assert all(v.const_value.dtype.numpy() == dtype for v in node.inputs[1:])


@pytest.mark.parametrize("name", ["bidirectional_gru", "bidirectional_lstm_last", "lstm_with_peepholes"])
def test_directions_are_never_cut(name: str):
    model, analysis = analysed(name)
    pruned, _ = _half(model, analysis)
    for old, new in zip(model.graph, pruned.graph, strict=False):
        if old.op_type in ("LSTM", "GRU", "RNN"):
            before, after = (n.inputs[2].const_value.shape.numpy() for n in (old, new))
            assert before[0] == after[0]
            assert after[2] < before[2]
            assert new.attributes["hidden_size"].as_int() == after[2]


@pytest.mark.parametrize(
    "name", ["densenet", "inception", "concat_of_two_widths", "yolo_c2f", "zero_channels_concatenated"]
)
@pytest.mark.parametrize("ratio", [0.5, 0.95])
def test_no_operand_of_a_concat_is_emptied(name: str, ratio: float):
    model, analysis = analysed(name)
    for seed in range(5):
        pruned, kept = rewrite(model, analysis, random_keep(analysis, ratio, seed))
        for node in pruned.graph:
            if node.op_type == "Concat":
                for value in node.inputs:
                    sizes = kept.get(value.name or "", ())
                    assert all(p is None or len(p) for p in sizes)
        assert run(pruned, feed_of(model, 3))[0].shape == run(model, feed_of(model, 3))[0].shape


def test_a_shape_that_is_computed_with_gives_the_old_number_of_channels():
    """x / √(channels), as attention scales its scores: the number is arithmetic, not a size."""
    model, analysis = studied(
        graph(
            """g (float[N,6] x, float[6,8] w1, int64 w_i, float[8,2] w2) => (float[N,2] y) {
                h = MatMul(x, w1) s = Shape(h) c = Gather(s, w_i) f = Cast<to=1>(c) k = Div(h, f)
                y = MatMul(k, w2) }""",
            w_i=np.array(1),
        )
    )
    pruned, kept = _half(model, analysis)
    x = feeds(model, 1, batch=3)[0]
    assert _shape(pruned, "w1") == [6, 4]
    np.testing.assert_allclose(run(pruned, x)[0], run(zeroed(model, kept), x)[0], rtol=1e-5, atol=1e-6)


def test_shapes_of_custom_operators_follow_the_cut():
    model, analysis = studied(
        graph(
            """g (float[N,3,8,8] x, float[8,3,3,3] w1, float[8] w_b, float[2,8,1,1] w2) => (float[N,2,6,6] y)
            { a = com.microsoft.FusedConv<activation="Relu">(x, w1, w_b) y = Conv(a, w2) }"""
        )
    )
    fused = model.graph[0].outputs[0]
    fused.type, fused.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(["N", 8, 6, 6])
    pruned, kept = _half(model, analysis)
    assert str(pruned.graph[0].outputs[0].shape) == "[N,4,6,6]"
    x = feeds(model, 1, batch=2)[0]
    np.testing.assert_allclose(run(pruned, x)[0], run(zeroed(model, kept), x)[0], rtol=1e-5, atol=1e-5)


def test_the_same_choice_gives_the_same_model():
    model, analysis = analysed("resnet_bottleneck")
    first, second = (ir.to_proto(_half(model, analysis)[0]).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_a_cell_that_is_not_named_stays_whole():
    model, analysis = analysed("mlp_gemm")
    name = analysis.structure.cells[0].name
    pruned, kept = rewrite(model, analysis, {name: np.arange(1)})
    cut = {n for n in pruned.graph.initializers if _shape(pruned, n) != _shape(model, n)}
    assert cut
    assert cut == {n for n in kept if n in model.graph.initializers}
    assert len(cut) < len(model.graph.initializers)
