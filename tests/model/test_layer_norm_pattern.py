"""Layer norms written as arithmetic become LayerNormalization; ONNX Runtime computes the same from both."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import feeds, graph, run
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.model.normalize import normalize
from onnxcomp.ops.attributes import float_attribute, int_attribute

C = 16
SCALE = np.linspace(0.5, 2.0, C).astype(np.float32)
BIAS = np.linspace(-1.0, 1.0, C).astype(np.float32)
NUMBERS = {
    "w_eps": np.float32(1e-5).reshape(()),
    "w_one": np.float32(1).reshape(()),
    "w_two": np.float32(2).reshape(()),
    "w_half": np.float32(0.5).reshape(()),
    "w_root": np.float32(-0.5).reshape(()),
}
HEAD = (
    "g (float[N,5,16] x, float[16] w_g, float[16] w_b, float w_eps, float w_one, float w_two, float w_half, "
    "float w_root) => (float[N,5,16] y) "
)
MEAN = "m = ReduceMean<axes = [-1]>(x) d = Sub(x, m) "
SQUARE = "p = Pow(d, w_two) v = ReduceMean<axes = [-1]>(p) e = Add(v, w_eps) "
AFFINE = "h = Mul(n, w_g) y = Add(h, w_b)"


def model(body: str, *, head: str = HEAD, opset: int = 17, **weights: np.ndarray) -> ir.Model:
    return graph(head + "{ " + body + " }", opset=opset, **{"w_g": SCALE, "w_b": BIAS, **NUMBERS, **weights})


def recognised(source: ir.Model, *, batch: int = 2, tolerance: float = 2e-6) -> ir.Model:
    """The canonical form, which computes what ONNX Runtime computes from the source."""
    result = normalize(source).model
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    assert [v.name for v in result.graph.outputs] == [v.name for v in source.graph.outputs]
    for feed in feeds(source, 2, batch=batch):
        for a, b in zip(run(source, feed), run(result, feed), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    return result


def kinds(result: ir.Model) -> list[str]:
    return [node.op_type for node in result.graph]


ORDERS = {
    "as PyTorch writes it": MEAN + SQUARE + "s = Sqrt(e) n = Div(d, s) " + AFFINE,
    "a product in place of the power": MEAN
    + "p = Mul(d, d) v = ReduceMean<axes = [-1]>(p) e = Add(w_eps, v) s = Sqrt(e) n = Div(d, s) "
    "h = Mul(w_g, n) y = Add(w_b, h)",
    "the difference computed twice": MEAN
    + "d2 = Sub(x, m) p = Pow(d2, w_two) v = ReduceMean<axes = [-1]>(p) e = Add(v, w_eps) s = Sqrt(e) n = Div(d, s) "
    + AFFINE,
    "the mean computed twice": MEAN
    + "m2 = ReduceMean<axes = [2]>(x) d2 = Sub(x, m2) p = Pow(d2, w_two) v = ReduceMean<axes = [-1]>(p) "
    "e = Add(v, w_eps) s = Sqrt(e) n = Div(d, s) " + AFFINE,
    "a reciprocal": MEAN + SQUARE + "s = Sqrt(e) r = Reciprocal(s) n = Mul(d, r) " + AFFINE,
    "one divided by the deviation": MEAN + SQUARE + "s = Sqrt(e) r = Div(w_one, s) n = Mul(r, d) " + AFFINE,
    "a power of a half": MEAN + SQUARE + "s = Pow(e, w_half) n = Div(d, s) " + AFFINE,
    "a power of minus a half": MEAN + SQUARE + "r = Pow(e, w_root) n = Mul(d, r) " + AFFINE,
    "the scale first": MEAN + SQUARE + "s = Sqrt(e) r = Reciprocal(s) k = Mul(r, w_g) h = Mul(d, k) y = Add(h, w_b)",
    "as TensorFlow writes it": MEAN
    + SQUARE
    + "s = Sqrt(e) r = Reciprocal(s) k = Mul(r, w_g) a = Mul(x, k) b = Mul(m, k) c = Sub(w_b, b) y = Add(a, c)",
    "as TensorFlow writes it, turned around": MEAN
    + SQUARE
    + "s = Sqrt(e) r = Reciprocal(s) k = Mul(w_g, r) b = Mul(k, m) c = Sub(w_b, b) a = Mul(k, x) y = Add(c, a)",
}


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_is_one_layer_normalization(order):
    source = model(ORDERS[order])
    result = recognised(source)
    assert kinds(result) == ["LayerNormalization"]
    (norm,) = result.graph
    assert (int_attribute(norm, "axis", 0), float_attribute(norm, "epsilon", 0)) == (-1, pytest.approx(1e-5))
    np.testing.assert_array_equal(norm.inputs[1].const_value.numpy(), SCALE)
    np.testing.assert_array_equal(norm.inputs[2].const_value.numpy(), BIAS)
    assert norm.name == normalize(source).model.graph[-1].name


def test_a_model_of_an_old_opset_is_lifted_to_the_one_that_has_it():
    for opset in (11, 13, 16):
        result = recognised(model(ORDERS["as PyTorch writes it"], opset=opset))
        assert kinds(result) == ["LayerNormalization"]
        assert (result.opset_imports[""], result.ir_version) == (17, 8)
    source = model(ORDERS["as PyTorch writes it"], opset=13)
    assert normalize(source).notes == (
        "written as arithmetic, recognised as one operator: 1 LayerNormalization; opset 13 → 17",
    )


def test_axes_given_as_an_input_are_read_too():
    body = (
        ORDERS["as PyTorch writes it"].replace("<axes = [-1]>(x)", "(x, w_a)").replace("<axes = [-1]>(p)", "(p, w_a)")
    )
    head = HEAD.replace(") =>", ", int64[1] w_a) =>")
    result = recognised(model(body, head=head, opset=18, w_a=np.array([-1])))
    assert (kinds(result), result.opset_imports[""]) == (["LayerNormalization"], 18)


def test_without_scale_or_bias_it_is_the_norm_with_ones():
    plain = MEAN + SQUARE + "s = Sqrt(e) "
    assert kinds(recognised(model(plain + "y = Div(d, s)"))) == ["LayerNormalization"]
    assert kinds(recognised(model(plain + "n = Div(d, s) y = Mul(n, w_g)"))) == ["LayerNormalization"]
    assert kinds(recognised(model(plain + "n = Div(d, s) y = Add(n, w_b)"))) == ["LayerNormalization"]


def test_one_number_for_all_channels_is_a_scale_too():
    result = recognised(model(MEAN + SQUARE + "s = Sqrt(e) n = Div(d, s) h = Mul(n, w_two) y = Add(h, w_one)"))
    assert kinds(result) == ["LayerNormalization"]
    np.testing.assert_array_equal(result.graph[0].inputs[1].const_value.numpy(), np.full(C, 2, np.float32))


def test_a_scale_that_is_computed_stays_behind_the_norm():
    head = HEAD.replace("(float[N,5,16] x,", "(float[N,5,16] x, float[N,1,16] s1,")
    result = recognised(model(MEAN + SQUARE + "s = Sqrt(e) n = Div(d, s) h = Mul(n, s1) y = Add(h, w_b)", head=head))
    assert kinds(result) == ["LayerNormalization", "Mul", "Add"]


def test_normalised_values_that_two_scales_share_stay_one_norm():
    body = MEAN + SQUARE + "s = Sqrt(e) n = Div(d, s) h = Mul(n, w_g) k = Mul(n, w_b) y = Add(h, k)"
    assert kinds(recognised(model(body))) == ["LayerNormalization", "Mul", "Mul", "Add"]


def test_parameters_with_leading_axes_of_size_one_lose_them():
    head = HEAD.replace("float[16] w_g", "float[1,1,16] w_g")
    result = recognised(model(ORDERS["as PyTorch writes it"], head=head, w_g=SCALE.reshape(1, 1, C)))
    assert kinds(result) == ["LayerNormalization"]
    assert result.graph[0].inputs[1].const_value.shape == (C,)


def test_where_the_rank_is_not_known_the_scale_says_how_long_the_last_axis_is():
    body = "q = Shape(x0) x = Reshape(x0, q) " + ORDERS["as PyTorch writes it"]
    result = recognised(model(body, head=HEAD.replace("[N,5,16] x", "[N,5,16] x0").replace("[N,5,16] y", "[a,b,c] y")))
    assert kinds(result) == ["Shape", "Reshape", "LayerNormalization"]


HALF = HEAD.replace("float[N,5,16]", "float16[N,5,16]").replace("float[16]", "float16[16]")
HALF_WEIGHTS = {"w_g": SCALE.astype(np.float16), "w_b": BIAS.astype(np.float16)}


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ("f = Cast<to = 1>(x) m = ReduceMean<axes = [-1]>(f) d = Sub(f, m) " + SQUARE
         + "s = Sqrt(e) q = Div(d, s) n = Cast<to = 10>(q) " + AFFINE, ["LayerNormalization"]),
        (MEAN + "c = Cast<to = 1>(d) p = Pow(c, w_two) v = ReduceMean<axes = [-1]>(p) e = Add(v, w_eps) s = Sqrt(e) "
         "q = Div(c, s) n = Cast<to = 10>(q) " + AFFINE, ["LayerNormalization"]),
        (MEAN + "c = Cast<to = 1>(d) p = Pow(c, w_two) v = ReduceMean<axes = [-1]>(p) e = Add(v, w_eps) s = Sqrt(e) "
         "c2 = Cast<to = 1>(d) q = Div(c2, s) n = Cast<to = 10>(q) " + AFFINE, ["LayerNormalization"]),
        ("f = Cast<to = 1>(x) m = ReduceMean<axes = [-1]>(f) d = Sub(f, m) " + SQUARE
         + "s = Sqrt(e) q = Div(d, s) n = Cast<to = 10>(q) h = Mul(n, w_g) k = Add(h, w_b) y = Add(k, x)",
         ["LayerNormalization", "Add"]),
    ],
)  # fmt: skip
def test_casts_to_single_precision_and_back_are_part_of_the_norm(body, kept):
    # Half precision has 11 bits: the two round at different places.
    assert kinds(recognised(model(body, head=HALF, **HALF_WEIGHTS), tolerance=4e-3)) == kept


NEAR_MISSES = {
    "an axis that is not the last": ORDERS["as PyTorch writes it"].replace("[-1]", "[1]"),
    "axes that differ": ORDERS["as PyTorch writes it"].replace("[-1]>(p)", "[1]>(p)"),
    "axes with a gap": ORDERS["as PyTorch writes it"].replace("[-1]", "[0,2]"),
    "no axes": ORDERS["as PyTorch writes it"].replace("<axes = [-1]>", ""),
    "another power": ORDERS["as PyTorch writes it"].replace("Pow(d, w_two)", "Pow(d, w_half)"),
    "another root": ORDERS["a power of a half"].replace("Pow(e, w_half)", "Pow(e, w_two)"),
    "a product of two things": ORDERS["a product in place of the power"].replace("Mul(d, d)", "Mul(d, x)"),
    "an epsilon for each channel": ORDERS["as PyTorch writes it"].replace("w_eps", "w_g"),
    "an epsilon that is computed": "z = Abs(x) u = ReduceMax<axes = [-1]>(z) "
    + ORDERS["as PyTorch writes it"].replace("w_eps", "u"),
    "the difference turned around": ORDERS["as PyTorch writes it"].replace("Sub(x, m)", "Sub(m, x)"),
    "the quotient turned around": ORDERS["as PyTorch writes it"].replace("Div(d, s)", "Div(s, d)"),
    "x divided, not the difference": ORDERS["as PyTorch writes it"].replace("Div(d, s)", "Div(x, s)"),
    "the variance of something else": "z = Neg(x) "
    + ORDERS["the mean computed twice"].replace("(x) d2 = Sub(x, m2)", "(z) d2 = Sub(z, m2)"),
    "a numerator of two": ORDERS["one divided by the deviation"].replace("w_one", "w_two"),
    "a mean that is read elsewhere": ORDERS["as PyTorch writes it"].replace("y =", "k =") + " y = Add(k, m)",
    "a variance that is read elsewhere": ORDERS["as PyTorch writes it"].replace("y =", "k =") + " y = Add(k, v)",
    "a bias that is computed, in TensorFlow's form": "z = Abs(x) "
    + ORDERS["as TensorFlow writes it"].replace("Sub(w_b, b)", "Sub(z, b)"),
    "the shift subtracted the other way": ORDERS["as TensorFlow writes it"].replace("Sub(w_b, b)", "Sub(b, w_b)"),
}  # fmt: skip


@pytest.mark.parametrize("miss", NEAR_MISSES)
def test_what_only_looks_like_a_norm_stays(miss):
    source = model(NEAR_MISSES[miss], opset=13)
    result = recognised(source)
    assert "LayerNormalization" not in kinds(result)
    assert result.opset_imports[""] == 13
    assert len(result.graph) == len(source.graph)


def test_a_norm_of_constants_is_left_to_folding():
    head = HEAD.replace("(float[N,5,16] x,", "(float[N,5,16] i, float[5,16] w_x,")
    body = ORDERS["as PyTorch writes it"].replace("(x", "(w_x").replace("y =", "z =") + " y = Add(i, z)"
    assert "LayerNormalization" not in kinds(recognised(model(body, head=head)))


def test_means_that_lose_their_axis_are_no_norm():
    body = ORDERS["as PyTorch writes it"].replace("<axes = [-1]>", "<axes = [-1], keepdims = 0>")
    head = HEAD.replace("[N,5,16]", "[16,16]")
    assert "LayerNormalization" not in kinds(recognised(model(body, head=head)))


@pytest.mark.parametrize("inner", ["m", "d", "v", "s"])
def test_a_value_on_the_way_that_is_an_output_of_the_graph_stays(inner):
    shape = {"d": "[N,5,16]"}.get(inner, "[N,5,1]")
    head = HEAD.replace("float[N,5,16] y)", f"float[N,5,16] y, float{shape} {inner})")
    result = recognised(model(ORDERS["as PyTorch writes it"], head=head))
    assert "LayerNormalization" not in kinds(result)


@pytest.mark.parametrize(("inner", "kept"), [("n", ["Mul", "Add"]), ("h", ["Add"])])
def test_an_output_of_the_graph_behind_the_norm_ends_it_there(inner, kept):
    head = HEAD.replace("float[N,5,16] y)", f"float[N,5,16] y, float[N,5,16] {inner})")
    result = recognised(model(ORDERS["as PyTorch writes it"], head=head))
    assert kinds(result) == ["LayerNormalization", *kept]


def test_a_scale_not_over_the_last_axis_stays_behind_the_norm():
    head = HEAD.replace("float[16] w_g", "float[5,1] w_g")
    result = recognised(model(ORDERS["as PyTorch writes it"], head=head, w_g=SCALE[:5, None].copy()))
    assert kinds(result) == ["LayerNormalization", "Mul", "Add"]


def test_a_norm_in_double_precision_stays():
    body, head = ORDERS["as PyTorch writes it"], HEAD.replace("float", "double")
    wide = {k: v.astype(np.float64) for k, v in {"w_g": SCALE, "w_b": BIAS, **NUMBERS}.items()}
    assert "LayerNormalization" not in kinds(recognised(model(body, head=head, **wide)))


def test_a_norm_stays_where_the_opset_cannot_be_lifted():
    head = HEAD.replace("(float[N,5,16] x,", "(float[N,5,16] x, float[1,2,4,4] i,").replace(
        "y)", "y, float[1,2,4,4] o, float[2] o2)"
    )
    bn = "o, o2, u1, u2, u3 = BatchNormalization(i, w_c, w_c, w_c, w_c) "
    source = model(
        bn + ORDERS["as PyTorch writes it"], head=head.replace("float w_eps", "float[2] w_c, float w_eps"), opset=13
    )
    result = normalize(source)
    assert "LayerNormalization" not in kinds(result.model)
    assert result.model.opset_imports[""] == 13
    assert "operators of opset 17 stay written as arithmetic" in result.notes[0]


def test_several_norms_in_a_row_are_all_found():
    first = ORDERS["as PyTorch writes it"]
    second = re.sub(r"\b([a-z])\b", r"\g<1>2", first).replace("x2", "y").replace("y2 =", "z =")
    head = HEAD.replace("y)", "z)")
    assert kinds(recognised(model(first + " " + second, head=head), tolerance=1e-5)) == ["LayerNormalization"] * 2


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_any_shape_over_any_number_of_last_axes_computes_the_same(data):
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    count = data.draw(st.integers(1, len(shape)))
    axes = [a if data.draw(st.booleans()) else a - len(shape) for a in range(len(shape) - count, len(shape))]
    order = data.draw(st.sampled_from(sorted(ORDERS)))
    body = ORDERS[order].replace("[2]", "[-1]").replace("[-1]", str(data.draw(st.permutations(axes))))
    own = [1] * data.draw(st.integers(0, len(shape) - count)) + shape[len(shape) - count :]
    head = HEAD.replace("N,5,16", ",".join(map(str, shape))).replace("float[16]", f"float[{','.join(map(str, own))}]")
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    weights = {n: rng.standard_normal(own).astype(np.float32) for n in ("w_g", "w_b")}
    source = model(body, head=head, **weights)
    if np.prod(shape[-count:]) == 1:
        # The normalised values are zero up to rounding, which the root of epsilon magnifies.
        assert kinds(normalize(source).model) == ["LayerNormalization"]
    else:
        assert kinds(recognised(source, tolerance=1e-4)) == ["LayerNormalization"]
