"""Axis rules, one by one: what each says of a node, without any pruning."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph

from onnxcomp.model import shapes
from onnxcomp.ops import axes as _  # noqa: F401  (registers the rules)
from onnxcomp.ops.axes.movement import segment, taken
from onnxcomp.ops.axes.relations import RULES, Contracted, Count, Mixed, Tied, Unsupported, View, relations


def _view(text: str, **weights: np.ndarray) -> View:
    """The first node of a graph whose values all have shapes."""
    model = graph(text, **weights)

    def shape_of(value) -> tuple[int, ...]:
        return tuple(value.shape.numpy())

    shapes.refresh(model)
    return View(model.graph[0], shape_of, lambda value, axis: True)


def _contracted(view: View) -> list[tuple[tuple[str, int], ...]]:
    return [tuple((s.value.name, s.axis) for s in r.slots) for r in relations(view) if isinstance(r, Contracted)]


def _tied(view: View) -> set[frozenset[tuple[str, int]]]:
    return {frozenset((s.value.name, s.axis) for s in r.slots) for r in relations(view) if isinstance(r, Tied)}


def test_a_convolution_sums_over_its_input_channels_and_makes_its_output_channels():
    view = _view("g (float[1,3,8,8] x, float[5,3,3,3] w, float[5] w_b) => (float[1,5,6,6] y) { y = Conv(x, w, w_b) }")
    assert _contracted(view) == [(("x", 1), ("w", 1))]
    assert {frozenset({("w", 0), ("y", 1)}), frozenset({("w_b", 0), ("y", 1)})} <= _tied(view)
    assert not any(axis > 1 for r in relations(view) for s in getattr(r, "slots", ()) for axis in (s.axis,))


def test_a_depthwise_convolution_hands_each_channel_on_and_counts_its_groups():
    view = _view("g (float[1,4,8,8] x, float[8,1,3,3] w) => (float[1,8,6,6] y) { y = Conv<group=4>(x, w) }")
    assert not _contracted(view)
    through = next(
        r for r in relations(view) if isinstance(r, Tied) and r.slots[0].value.name == "x" and r.slots[0].axis
    )
    assert through.slots[0].positions.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [r.attribute for r in relations(view) if isinstance(r, Count)] == ["group"]


@pytest.mark.parametrize(("a", "b", "expected"), [(0, 0, (1, 0)), (1, 0, (0, 0)), (0, 1, (1, 1)), (1, 1, (0, 1))])
def test_gemm_contracts_the_axes_that_its_flags_say(a, b, expected):
    shapes = "float[4,4] x, float[4,4] w"
    view = _view(f"g ({shapes}) => (float[4,4] y) {{ y = Gemm<transA={a}, transB={b}>(x, w) }}")
    assert _contracted(view) == [(("x", expected[0]), ("w", expected[1]))]


def test_a_vector_on_the_right_of_a_matmul_is_summed_away():
    assert _contracted(_view("g (float[2,3,4] x, float[4] w) => (float[2,3] y) { y = MatMul(x, w) }")) == [
        (("x", 2), ("w", 0))
    ]


@pytest.mark.parametrize("operator", ["ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum"])
def test_sums_over_channels_are_contractions(operator):
    axes = np.array([1])
    form = f"{operator}(x, w)" if operator == "ReduceSum" else f"{operator}<axes=[1]>(x)"
    extra = ", int64[1] w" if operator == "ReduceSum" else ""
    view = _view(f"g (float[2,3,4] x{extra}) => (float[2,1,4] y) {{ y = {form} }}", w=axes)
    assert _contracted(view) == [(("x", 1),)]
    assert not any(isinstance(r, Mixed) for r in relations(view))


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp"])
def test_other_reductions_over_channels_mix_them(operator):
    """mean: fewer terms to divide by; max, min and product: a zero is not nothing there; log Σ exp 0 isn't either."""
    view = _view(f"g (float[2,3,4] x) => (float[2,1,4] y) {{ y = {operator}<axes=[1]>(x) }}")
    assert [(r.slot.value.name, r.slot.axis) for r in relations(view) if isinstance(r, Mixed)] == [("x", 1)]


def test_a_layer_norm_mixes_the_axes_behind_its_own_only():
    view = _view("g (float[2,3,4] x, float[4] w) => (float[2,3,4] y) { y = LayerNormalization(x, w) }")
    assert [r.slot.axis for r in relations(view) if isinstance(r, Mixed)] == [2]


@pytest.mark.parametrize("axes", [[2, 3], [1, 2]])
def test_mean_variance_normalisation_mixes_its_axes(axes):
    view = _view(f"g (float[2,3,4,5] x) => (float[2,3,4,5] y) {{ y = MeanVarianceNormalization<axes={axes}>(x) }}")
    assert sorted(r.slot.axis for r in relations(view) if isinstance(r, Mixed)) == axes


def test_the_directions_of_a_gru_are_in_no_relation():
    view = _view(
        """g (float[5,2,3] x, float[2,12,3] w, float[2,12,4] w_r) => (float[5,2,2,4] y)
            { y = GRU<hidden_size=4, direction="bidirectional">(x, w, w_r) }"""
    )
    named = {(s.value.name, s.axis) for r in relations(view) for s in getattr(r, "slots", ())}
    assert not {("w", 0), ("w_r", 0), ("y", 1)} & named
    assert {("w", 1), ("w_r", 1), ("w_r", 2), ("y", 3)} <= named


def test_an_operator_without_a_rule_is_unsupported():
    with pytest.raises(Unsupported, match="no axis rule"):
        relations(_view("g (float[2,3] x) => (float[2,3] y) { y = Det(x) }"))


def test_a_layout_that_a_rule_does_not_know_is_unsupported():
    text = "g (float[2,5,3] x, float[1,4,3] w, float[1,4,4] w_r) => (float[2,5,1,4] y)"
    with pytest.raises(Unsupported, match="layout"):
        relations(_view(f"{text} {{ y = RNN<hidden_size=4, layout=1>(x, w, w_r) }}"))


@pytest.mark.parametrize(
    ("start", "end", "step", "size"),
    [
        (0, 9, 2, 9),
        (1, 2**62, 3, 10),
        (-1, -(2**62), -1, 5),
        (-2, 1, -2, 8),
        (20, 0, -3, 7),
        (-4, -1, 1, 6),
        (5, 2, 1, 6),
    ],
)
def test_taken_are_the_positions_that_python_slices_take(start, end, step, size):
    stop = None if step < 0 and end < -size else end
    assert list(taken(start, end, step, size)) == list(range(size))[slice(start, stop, step)]


def test_the_axes_that_a_reshape_merges_are_looked_at_together():
    assert segment((2, 3, 4, 5), (2, 12, 5), 1) == ((1, 3), (1, 2))
    assert segment((2, 3, 4, 5), (2, 12, 5), 3) == ((3, 4), (2, 3))
    assert segment((6, 4), (2, 3, 4), 0) == ((0, 1), (0, 2))


def test_every_rule_has_a_docstring():
    assert len(RULES) > 100
    assert all(rule.__doc__ for rule in RULES.values())
