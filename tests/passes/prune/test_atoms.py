"""What ties channels, and what locks them with which reason."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph
from pruning import analysed, studied

from onnxcomp.ops.axes import relations as says
from onnxcomp.passes.prune.components import components


def _locks(analysis) -> dict[str, str]:
    """Node → the first reason."""
    found: dict[str, str] = {}
    for _, lock in analysis.structure.atoms.locks:
        found.setdefault(lock.op_type, lock.sentence)
    return found


def _sizes(analysis) -> dict[str, int]:
    return {cell.name: cell.size for cell in analysis.structure.cells}


BETWEEN = """g (float[N,6] x, float[6,8] w1, float[8,4] w2, float[4,4] w3, float[4,2] w4) => (float[N,2] y) {{
    h = MatMul(x, w1) {} c = MatMul(k, w2) d = Relu(c) e = MatMul(d, w3) f = Relu(e) y = MatMul(f, w4) }}"""


def test_an_unknown_operator_locks_and_is_reported_by_its_name(monkeypatch: pytest.MonkeyPatch):
    model = graph(BETWEEN.format("k = Tanh(h)"))
    _, known = studied(model)
    monkeypatch.delitem(says.RULES, "Tanh")
    _, unknown = studied(model)
    assert _sizes(known) == {"MatMul_h": 8, "MatMul_c": 4, "MatMul_e": 4}
    assert _sizes(unknown) == {"MatMul_c": 4, "MatMul_e": 4}
    assert "no axis rule" in _locks(unknown)["Tanh"]
    assert list(unknown.structure.atoms.unsupported) == ["Tanh_k"]


def test_only_what_touches_an_unknown_operator_is_locked():
    """What comes after it is pruned as before: an operator that is not understood says nothing of its successors."""
    _, analysis = analysed("reversed_sequence")
    assert "ReverseSequence" not in _locks(analysis)
    _, analysis = analysed("elements_gathered")
    assert "no axis rule" in _locks(analysis)["GatherElements"]
    assert set(_locks(analysis)) == {"GatherElements", "Conv", "graph"}


def test_a_rule_that_does_not_fit_locks_instead_of_raising(monkeypatch: pytest.MonkeyPatch):
    def wrong(view):
        yield says.Tied((says.Slot(view.node.inputs[0], 7), view.out(1)))

    monkeypatch.setitem(says.RULES, "Relu", wrong)
    _, analysis = studied(graph(BETWEEN.format("k = Tanh(h)")))
    assert "does not fit" in _locks(analysis)["Relu"]
    assert _sizes(analysis).get("MatMul_h") == 8


def test_what_a_body_reads_is_locked():
    for name, op in (("if_with_captured_value", "If"), ("loop_with_captured_value", "Loop")):
        _, analysis = analysed(name)
        assert any(
            lock.op_type == op and "its body reads" in lock.sentence for _, lock in analysis.structure.atoms.locks
        )
        assert analysis.structure.cells


@pytest.mark.parametrize(
    ("name", "op"),
    [
        ("efficient_channel_attention", "Conv"),
        ("channel_attention_matrix", "Softmax"),
        ("top_channels", "TopK"),
        ("cumulative_channels", "CumSum"),
        ("softmax_over_channels", "Softmax"),
        ("elements_gathered", "GatherElements"),
        ("scan_over_time", "Scan"),
        ("pooled_and_unpooled", "MaxUnpool"),
    ],
)
def test_operators_that_need_all_channels_lock_them(name: str, op: str):
    _, analysis = analysed(name)
    node = next(n for n in analysis.structure.atoms.nodes if n.op_type == op)
    data = node.inputs[0]
    assert op in {lock.op_type for _, lock in analysis.structure.atoms.locks}
    for axis, atoms in enumerate(analysis.structure.atoms.axes.get(data, ())):
        membership = analysis.structure.membership(atoms)
        if membership is not None and op != "Conv":
            assert (membership[0] == -1).all(), (name, axis)


def test_residual_add_forces_both_branches_to_keep_the_same_channels():
    model, analysis = studied(
        graph(
            """g (float[N,6] x, float[6,8] w1, float[6,8] w2, float[8,2] w3) => (float[N,2] y)
            { a = MatMul(x, w1) b = MatMul(x, w2) c = Add(a, b) y = MatMul(c, w3) }"""
        )
    )
    (cell,) = analysis.structure.cells
    assert cell.producers == ("MatMul_a", "MatMul_b")
    assert cell.coupled_by == ("Add_c",)
    roots = [
        analysis.structure.atoms.root[analysis.structure.atoms.axes[v][1]]
        for n in model.graph
        for v in n.outputs[:1]
        if v.name in "abc"
    ]
    assert all((r == roots[0]).all() for r in roots)


def test_shared_weights_are_cut_once_for_all_their_users():
    _, analysis = studied(
        graph(
            """g (float[N,6] l, float[N,6] r, float[6,8] w, float[8,2] w3) => (float[N,2] y, float[N,2] z)
            { a = MatMul(l, w) b = MatMul(r, w) y = MatMul(a, w3) z = MatMul(b, w3) }"""
        )
    )
    (cell,) = analysis.structure.cells
    assert cell.producers == ("MatMul_a", "MatMul_b")
    assert cell.consumers == ("MatMul_y", "MatMul_z")


def test_sizes_that_change_from_call_to_call_are_never_tracked():
    _, analysis = studied(
        graph(
            "g (float[N,6] x, float[6,8] w1, float[8,2] w2) => (float[N,2] y) { h = MatMul(x, w1) y = MatMul(h, w2) }"
        )
    )
    for value, axes in analysis.structure.atoms.axes.items():
        if not value.is_initializer():
            assert axes[0] is None


def test_an_output_of_the_model_stays_whole():
    _, analysis = studied(graph("g (float[N,6] x, float[6,8] w1) => (float[N,8] y) { h = MatMul(x, w1) y = Relu(h) }"))
    assert not analysis.structure.cells
    assert analysis.structure.atoms.locks[-1][1].sentence == "y is an output of the model"


def test_components_are_those_of_a_search():
    rng = np.random.default_rng(0)
    for count in (1, 10, 200):
        a, b = rng.integers(0, count, (2, count // 2))
        root = np.arange(count)
        for _ in range(count):
            for i, j in zip(a, b, strict=True):
                root[i] = root[j] = min(root[i], root[j])
        assert components(count, a, b).tolist() == root.tolist()


def test_weights_that_the_graph_computes_are_weights():
    """int8 · scale, as small models store them: the stored values are cut."""
    _, analysis = studied(
        graph(
            """g (float[N,6] x, int8[6,8] w1, float[1,8] w2, float[8,2] w3) => (float[N,2] y)
            { f = Cast<to=1>(w1) g = Mul(f, w2) h = MatMul(x, g) y = MatMul(h, w3) }""",
            w1=np.arange(48, dtype=np.int8).reshape(6, 8),
        )
    )
    assert _sizes(analysis) == {"MatMul_h": 8}
    assert isinstance(next(iter(analysis.weights)), ir.Value)


@pytest.mark.parametrize("bias", ["", ", w1"])
def test_a_bias_does_not_free_the_channels_of_a_weight_that_is_computed(bias: str):
    _, analysis = studied(
        graph(
            f"""g (float[N,3,4,4] x, float[8,3,1,1] given, float[8] w1, float[4,8,1,1] w2, float[2,4,1,1] w3) =>
            (float[N,2,4,4] y) {{ a = Conv(x, given{bias}) b = Relu(a) c = Conv(b, w2) d = Relu(c) y = Conv(d, w3) }}"""
        )
    )
    assert _sizes(analysis) == {"Conv_c": 4}
