"""Two nodes for one: what they compute by ONNX Runtime, for every form a node can have."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import feeds, graph, run
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.evaluate.proof import check_structure
from onnxcomp.passes.factorize.forms import allows, sides, spatial_matrix
from onnxcomp.passes.factorize.rewrite import Factors, merged, split
from onnxcomp.passes.factorize.sites import Site, find_sites
from onnxcomp.passes.factorize.spectrum import plain

NODES = {
    "gemm": "float[N,24] x, float[24,32] w, float[32] wb) => (float[N,32] y) { [n] y = Gemm(x, w, wb) }",
    "gemm without bias": "float[N,24] x, float[24,32] w) => (float[N,32] y) { [n] y = Gemm(x, w) }",
    "transB": "float[N,24] x, float[32,24] w, float[32] wb) => (float[N,32] y) { [n] y = Gemm<transB = 1>(x, w, wb) }",
    "transA": "float[24,N] x, float[24,32] w, float[32] wb) => (float[N,32] y) { [n] y = Gemm<transA = 1>(x, w, wb) }",
    "transA and transB": """float[24,N] x, float[32,24] w, float[1,32] wb) => (float[N,32] y) {
        [n] y = Gemm<transA = 1, transB = 1>(x, w, wb) }""",
    "alpha and beta": """float[N,24] x, float[24,32] w, float[32] wb) => (float[N,32] y) {
        [n] y = Gemm<alpha = 0.5, beta = -2.0>(x, w, wb) }""",
    "scalar bias": "float[N,24] x, float[24,32] w, float[1] wb) => (float[N,32] y) { [n] y = Gemm(x, w, wb) }",
    "matmul": "float[N,24] x, float[24,32] w) => (float[N,32] y) { [n] y = MatMul(x, w) }",
    "matmul and add": """float[N,24] x, float[24,32] w, float[32] wb) => (float[N,32] y) {
        [n] a = MatMul(x, w) y = Add(wb, a) }""",
    "batched": "float[N,5,7,24] x, float[24,32] w) => (float[N,5,7,32] y) { [n] y = MatMul(x, w) }",
    "vector": "float[24] x, float[24,32] w) => (float[32] y) { [n] y = MatMul(x, w) }",
    "conv": """float[N,16,9,8] x, float[32,16,3,3] w, float[32] wb) => (float[N,32,9,8] y) {
        [n] y = Conv<pads = [1,1,1,1]>(x, w, wb) }""",
    "strided": """float[N,16,9,8] x, float[32,16,3,3] w) => (float[N,32,5,3] y) {
        [n] y = Conv<pads = [1,0,1,1], strides = [2,3]>(x, w) }""",
    "dilated": """float[N,16,9,8] x, float[32,16,3,3] w) => (float[N,32,5,6] y) {
        [n] y = Conv<dilations = [2,1]>(x, w) }""",
    "same upper": """float[N,16,9,8] x, float[32,16,3,3] w) => (float[N,32,5,4] y) {
        [n] y = Conv<auto_pad = "SAME_UPPER", strides = [2,2]>(x, w) }""",
    "grouped": """float[N,32,5,5] x, float[64,16,3,3] w, float[64] wb) => (float[N,64,3,3] y) {
        [n] y = Conv<group = 2>(x, w, wb) }""",
    "pointwise": "float[N,32,5,5] x, float[48,32,1,1] w) => (float[N,48,5,5] y) { [n] y = Conv(x, w) }",
    "wide": "float[N,16,9,8] x, float[32,16,1,5] w) => (float[N,32,9,4] y) { [n] y = Conv(x, w) }",
    "one axis": "float[N,16,20] x, float[32,16,3] w) => (float[N,32,18] y) { [n] y = Conv(x, w) }",
    "three axes": "float[N,16,4,4,4] x, float[32,16,2,2,2] w) => (float[N,32,3,3,3] y) { [n] y = Conv(x, w) }",
}
CASES = [(name, "channels") for name in NODES] + [(n, "spatial") for n in ("conv", "strided", "dilated", "same upper")]


def made(site: Site, form: str, rank: int | None = None) -> Factors:
    """Factors by plain SVD; the full rank by default."""
    view = site.views[0]
    matrix = view.matrix() if form == "channels" else spatial_matrix(view)
    first, second, _ = plain(matrix).factors(matrix, rank or min(sides(view, form)))  # type: ignore[arg-type]
    return Factors(form, first, second, np.zeros(view.shape[:2]))  # type: ignore[arg-type]


def single(body: str) -> tuple[ir.Model, Site]:
    model = graph(f"g ({body}")
    sites, skips = find_sites(model, (), ())
    assert not skips
    return model, sites[0]


@pytest.mark.parametrize(("name", "form"), CASES)
def test_at_full_rank_the_two_nodes_compute_what_the_one_did(name: str, form: str) -> None:
    model, site = single(NODES[name])
    assert allows(site.views[0], form)  # type: ignore[arg-type]
    result = split(model, {site.name: site}, {site.name: made(site, form)})
    assert len(result.graph) == len(model.graph) + 1
    assert check_structure(model, result, same_shapes=True) is None
    assert "w" not in result.graph.initializers
    for batch in (1, 3):
        feed = feeds(model, 1, batch=batch)[0]
        before, after = run(model, feed)[0], run(result, feed)[0]
        np.testing.assert_allclose(after, before, rtol=0, atol=2e-5 * np.abs(before).max())


@pytest.mark.parametrize(("name", "form"), CASES)
def test_at_a_lower_rank_they_compute_what_the_product_of_the_factors_does(name: str, form: str) -> None:
    model, site = single(NODES[name])
    factors = {site.name: made(site, form, 4)}
    if site.can_bias:
        shift = np.random.default_rng(0).standard_normal(site.shape[:2])
        factors = {site.name: Factors(form, factors[site.name].first, factors[site.name].second, shift)}  # type: ignore[arg-type]
    sites = {site.name: site}
    feed = feeds(model, 1, batch=2)[0]
    two, one, whole = (run(m, feed)[0] for m in (split(model, sites, factors), merged(model, sites, factors), model))
    np.testing.assert_allclose(two, one, rtol=0, atol=2e-5 * np.abs(whole).max())
    assert np.abs(one - whole).max() > 1e-2 * np.abs(whole).max()


def test_the_second_node_keeps_name_and_output_of_the_whole() -> None:
    model, site = single(NODES["conv"])
    result = split(model, {site.name: site}, {site.name: made(site, "channels", 8)})
    assert [node.name for node in result.graph] == ["n.reduced", "n"]
    assert result.graph[1].outputs[0].name == "y"
    assert tuple(result.graph.initializers["w.first"].shape) == (8, 16, 3, 3)
    assert tuple(result.graph.initializers["w.second"].shape) == (32, 8, 1, 1)


def test_nodes_that_share_a_weight_share_its_factors() -> None:
    model = graph(
        """g (float[N,24] x, float[24,24] w, float[24] wb1, float[24] wb2) => (float[N,24] y) {
            [a] p = MatMul(x, w) q = Add(p, wb1) r = Relu(q) [b] s = MatMul(r, w) y = Add(s, wb2) }"""
    )
    (site,), skips = find_sites(model, (), ())
    assert not skips
    assert len(site.views) == 2
    result = split(model, {site.name: site}, {site.name: made(site, "channels", 6)})
    assert {n for n in result.graph.initializers if n.startswith("w.")} == {"w.first", "w.second"}
    assert [n.op_type for n in result.graph].count("MatMul") == 4
    feed = feeds(model, 1, batch=2)[0]
    one = merged(model, {site.name: site}, {site.name: made(site, "channels", 6)})
    np.testing.assert_allclose(run(result, feed)[0], run(one, feed)[0], atol=1e-5)
    assert np.abs(run(result, feed)[0] - run(model, feed)[0]).max() > 1e-3


def test_half_floats_stay_half_floats() -> None:
    model, site = single(
        "float16[N,24] x, float16[24,32] w, float16[32] wb) => (float16[N,32] y) { [n] y = Gemm(x, w, wb) }"
    )
    result = split(model, {site.name: site}, {site.name: made(site, "channels")})
    assert {v.dtype for v in result.graph.initializers.values()} == {ir.DataType.FLOAT16}
    feed = feeds(model, 1, batch=2)[0]
    np.testing.assert_allclose(run(result, feed)[0], run(model, feed)[0], atol=2e-2)


def test_the_result_checks_and_its_shapes_can_be_inferred() -> None:
    model, site = single(NODES["grouped"])
    proto = ir.to_proto(split(model, {site.name: site}, {site.name: made(site, "channels", 4)}))
    onnx.checker.check_model(proto, full_check=True)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_convolution_in_any_form_is_the_product_of_its_factors(data: st.DataObject) -> None:
    draw = data.draw
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    inside, out = draw(st.integers(4, 8)), draw(st.integers(12, 20))
    kernel, strides = ([draw(st.integers(1, 3)) for _ in range(2)] for _ in range(2))
    dilations, pads = [draw(st.integers(1, 2)) for _ in range(2)], [draw(st.integers(0, 2)) for _ in range(4)]
    bias = draw(st.booleans())
    shape = f"[{groups * out},{inside},{kernel[0]},{kernel[1]}]"
    model = graph(
        f"""g (float[N,{groups * inside},8,9] x, float{shape} w, float[{groups * out}] wb) => (float[N,a,b,c] y) {{
            [n] y = Conv<group = {groups}, strides = {strides}, dilations = {dilations}, pads = {pads}>
                (x, w{", wb" if bias else ""}) }}"""
    )
    from onnxcomp.ops.linear import LinearView

    view = LinearView.of(model.graph[0])
    assert view is not None
    site = Site((view,))
    form = draw(st.sampled_from(["channels", "spatial"] if allows(view, "spatial") else ["channels"]))
    factors = {"n": made(site, form, draw(st.integers(1, min(sides(view, form)))))}
    feed = feeds(model, 1, batch=draw(st.integers(1, 3)))[0]
    two, one = (run(make(model, {"n": site}, factors), feed)[0] for make in (split, merged))
    np.testing.assert_allclose(two, one, rtol=0, atol=3e-5 * max(1.0, float(np.abs(run(model, feed)[0]).max())))
