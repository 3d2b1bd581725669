"""Every node that holds weights is changed, or the plan says why not, whatever --only and --exclude say."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import context, graph

from onnxcomp.model.normalize import normalize
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.quantize.plan import QuantPlan
from onnxcomp.passes.quantize.quantize import Quantize
from onnxcomp.report.reasons import Reason

TEXT = """g (int64[1,5] ids, bool k) => (float[a,b,c] y, float[d,e,f] z) {
    e = Gather(w_table, ids) f = Gather(w_small, ids) g = Gather(w_both, ids) h = Gather<axis = 1>(w_columns, ids)
    n = Gather(w_nan, ids) o = Gather(w_cube, ids) z = MatMul(g, w_both)
    s1 = Add(e, f) s2 = LayerNormalization(s1, w_g, w_g) m = MatMul(s2, w_m) p = PRelu(m, w_g) t = Sub(p, w_g)
    q = ReduceSum<keepdims = 0>(h) q2 = ReduceSum<keepdims = 0>(n) q3 = ReduceSum<keepdims = 0>(o)
    u = Add(t, q) v = Add(u, q2) x = Add(v, q3)
    y = If(k) <then_branch = a () => (float[a,b,c] r1) { r1 = MatMul(x, w_m) },
              else_branch = b () => (float[a,b,c] r2) { c = Slice(w_m, w_zero, w_end) d = Sub(x, w_g)
                                                       r2 = MatMul(d, c) }> }"""
INPUTS = """(int64[1,5] ids, bool k, float[600,32] w_table, float[9,32] w_small, float[160,160] w_both,
    float[32,600] w_columns, float[600,32] w_nan, float[600,2,32] w_cube, float[32] w_g, float[32,32] w_m,
    int64[1] w_zero, int64[1] w_end)"""


def model() -> ir.Model:
    nan = np.ones((600, 32), np.float32)
    nan[3, 4] = np.nan
    numbers = {"w_zero": np.array([0]), "w_end": np.array([32])}
    return normalize(graph(TEXT.replace("(int64[1,5] ids, bool k)", INPUTS), w_nan=nan, **numbers)).model


def planned(source: ir.Model, **options: tuple[str, ...]) -> QuantPlan:
    items = [{"ids": np.arange(i, i + 5)[None] % 9, "k": np.asarray(True)} for i in range(4)]
    ctx = context(items)
    return Quantize(QuantizeConfig(smooth="none")).plan(source, ctx.__class__(**{**ctx.__dict__, **options}))


def holding(source: ir.Model) -> set[str]:
    """Nodes that read a constant of several floats."""
    return {
        node.name or ""
        for node in source.graph.all_nodes()
        for v in node.inputs
        if v is not None and v.const_value is not None and v.const_value.size > 1 and v.dtype == ir.DataType.FLOAT
    }


@pytest.mark.parametrize(
    "options",
    [
        {},
        *({"exclude": (pattern,)} for pattern in ("Gather", "Gather_e", "MatMul", "MatMul_m", "*_m", "*")),
        *({"only": (pattern,)} for pattern in ("Gather", "MatMul", "MatMul_m", "Sub", "*_e")),
        {"only": ("Gather", "MatMul"), "exclude": ("Gather_e",)},
    ],
    ids=str,
)
def test_each_node_with_weights_is_changed_or_has_a_reason_and_never_both(options):
    source = model()
    plan = planned(source, **options)
    told = [skip.node for skip in plan.left_alone()]
    assert holding(source) - set(told) - plan.changes() == set()
    assert plan.changes() & set(told) == set()
    assert len(holding(source)) == 14


def test_tables_that_stay_say_which_of_the_reasons_it_is():
    reasons = {skip.node: skip.code for skip in planned(model()).left_alone()}
    assert reasons["Gather_f"] is Reason.TOO_SMALL
    assert reasons["Gather_g"] is Reason.SHARED
    assert reasons["Gather_h"] is Reason.UNSUPPORTED_FORM
    assert reasons["Gather_n"] is Reason.NOT_FINITE
    assert reasons["Gather_o"] is Reason.UNSUPPORTED_FORM
    assert "Gather_e" not in reasons
    assert planned(model()).tables == ("Gather_e",)


def test_an_excluded_table_and_one_without_company_say_so():
    excluded = {s.node: s.code for s in planned(model(), exclude=("Gather_e",)).left_alone()}
    alone = {s.node: s.code for s in planned(model(), only=("Gather",)).left_alone()}
    assert (excluded["Gather_e"], alone["Gather_e"]) == (Reason.EXCLUDED, Reason.KEPT_FLOAT)
