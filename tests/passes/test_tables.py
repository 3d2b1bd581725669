"""Embedding tables as int8 rows."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import context, graph, run

from onnxcomp.model.normalize import normalize
from onnxcomp.passes.quantize.quantize import Quantize
from onnxcomp.passes.tables import find_tables, write_tables

TEXT = """g (int64[N,5] ids, float[600,32] w_t, float[32,16] w) => (float[N,5,16] y) {{
    e = Gather{axis}(w_t, ids) y = MatMul(e, w){more} }}"""
TABLE = (np.random.default_rng(0).standard_normal((600, 32)) * np.geomspace(0.01, 10, 600)[:, None]).astype(np.float32)


def model(axis: str = "", more: str = "", **weights: np.ndarray) -> ir.Model:
    return normalize(graph(TEXT.format(axis=axis, more=more), w_t=TABLE, **weights)).model


def ids(seed: int = 0) -> dict[str, np.ndarray]:
    return {"ids": np.random.default_rng(seed).integers(-600, 600, (3, 5))}


@pytest.mark.parametrize("axis", ["", "<axis = -2>"])
def test_each_row_is_within_half_a_step_of_its_own_scale(axis):
    before = model(axis)
    after = before.clone()
    write_tables(after, find_tables(before, (), ()))
    onnx.checker.check_model(ir.to_proto(after))
    for m in (before, after):
        m.graph.outputs[:] = [next(v for n in m.graph for v in n.outputs if v.name == "e")]
    feed = ids()
    wanted, given = run(before, feed)[0], run(after, feed)[0]
    step = np.abs(TABLE[feed["ids"]]).max(axis=-1, keepdims=True) / 127
    assert (np.abs(wanted - given) <= 0.5001 * step).all()
    assert not np.array_equal(wanted, given)


def test_a_model_with_a_table_becomes_about_four_times_smaller_and_stays_close():
    from onnxcomp.model.save import serialize

    before = model()
    ctx = context([ids(i) for i in range(8)])
    step = Quantize()
    plan = step.plan(before, ctx)
    after = step.apply(before, plan, ctx)
    assert plan.tables == ("Gather_e",)
    assert len(serialize(before)) > 3.2 * len(serialize(after))
    a, b = (run(m, ids(99))[0].ravel() for m in (before, after))
    assert 0.999 < a @ b / np.linalg.norm(a) / np.linalg.norm(b) < 1
    assert "w_t" not in after.graph.initializers
    assert any("int8 rows" in s for s in step.prove(before, after, plan, ctx).sentences)


@pytest.mark.parametrize(
    ("axis", "more"),
    [("<axis = 1>", ""), ("", " s = Constant<value = int64[2] {1, 0}>() z = Add(w_t, w_t)")],
    ids=["columns", "read by others too"],
)
def test_other_uses_of_a_table_leave_it_as_it_is(axis, more):
    text = TEXT.replace("float[32,16] w)", "float[5,16] w)") if axis else TEXT
    text = text.replace("int64[N,5] ids", "int64[5] ids").replace("y) {{", "y, float[a,b] z) {{") if more else text
    text = (
        text.replace("float[N,5,16] y", "float[a2,b2,c2] y")
        if axis
        else text.replace("float[N,5,16] y", "float[5,16] y")
        if more
        else text
    )
    found = normalize(graph(text.format(axis=axis, more=more), w_t=TABLE)).model
    assert find_tables(found, (), ()) == ()


def test_excluded_and_small_tables_stay():
    assert find_tables(model(), (), ("Gather",)) == ()
    small = graph(TEXT.format(axis="", more="").replace("600,32", "60,32"))
    assert find_tables(normalize(small).model, (), ()) == ()


def test_two_readers_share_one_table():
    text = """g (int64[N,5] ids, int64[N,5] more, float[600,32] w_t, float[32,16] w) => (float[N,5,16] y) {
        e = Gather(w_t, ids) f = Gather(w_t, more) s = Add(e, f) y = MatMul(s, w) }"""
    before = normalize(graph(text, w_t=TABLE)).model
    after = before.clone()
    names = find_tables(before, (), ())
    assert set(names) == {"Gather_e", "Gather_f"}
    write_tables(after, names)
    assert sum(v.dtype == ir.DataType.INT8 for v in after.graph.initializers.values()) == 1
