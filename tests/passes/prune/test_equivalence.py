"""Pruned models equal the originals in which the removed channels are masked: every topology, random prunings."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import feeds, graph, run
from prune_topologies import TOPOLOGIES, feed_of
from pruning import CONFIG, Keep, analysed, random_keep, studied, zeroed

from onnxcomp.calibration.readers import Feed
from onnxcomp.evaluate import equivalence as shared
from onnxcomp.passes.prune import equivalence
from onnxcomp.passes.prune.analysis import Analysis
from onnxcomp.passes.prune.equivalence import check
from onnxcomp.passes.prune.rewrite import Kept, rewrite

RATIOS = (0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9)
LARGE = 45
"""Topologies of more nodes are pruned 5 times, the others 20 times."""

DIVIDED_BY = frozenset({"channel_constants", "mean_variance_norm"})
"""Weights, or deviations, that are divided by: zeroing them is no reference."""

WITHOUT_CELLS = frozenset({"scattered_channels", "weight_only_blocks"})
"""All of their channels are used in ways that no rule knows, or go into a body or an output."""


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_random_prunings_are_proved_and_equal_zeroed_weights(name: str) -> None:
    """Two ways to say what a pruned model must compute: masks where channels are summed away (the engine's own proof),
    and, here, zeros in all weights; the latter only where nothing divides by them."""
    topology = TOPOLOGIES[name]
    model, analysis = analysed(name)
    batches = [feed_of(model, 1), feed_of(model, 3, seed=1)]
    changed = compared = 0
    count = 20 if len(model.graph) <= LARGE else 5
    if name in WITHOUT_CELLS:
        assert not analysis.structure.cells
        return
    assert analysis.structure.cells
    for seed in range(count):
        keep = random_keep(analysis, RATIOS[seed % len(RATIOS)], seed)
        proof = check(model, analysis, keep, batches, CONFIG)
        assert proof.complaint is None, (proof, seed)
        changed += proof.changed
        pruned, kept = rewrite(model, analysis, keep)
        assert kept
        _assert_sizes_are_right(pruned)
        for feed in batches:
            for y, x in zip(run(pruned, feed), run(model, feed), strict=True):
                assert y.shape == x.shape
        exact = random_keep(analysis, RATIOS[seed % len(RATIOS)], seed, exact_only=True)
        if topology.exact and exact and seed < 5 and name not in DIVIDED_BY:
            compared += _equals_zeroed(model, analysis, exact, batches, topology.tolerance)
    if any(cell.exact for cell in analysis.structure.cells):
        assert changed > count // 2, "masking hardly ever changes the outputs: nothing is proved"
        assert compared or not topology.exact or name in DIVIDED_BY, "no pruning could be compared with zeroed weights"


def _assert_sizes_are_right(pruned: ir.Model) -> None:
    """No axis is empty, unless it was made to be; what is inferred agrees with the weights."""
    for value in pruned.graph.initializers.values():
        assert value.const_value is not None
        shape = tuple(value.const_value.shape.numpy())
        assert value.shape == ir.Shape(shape)


def _equals_zeroed(model: ir.Model, analysis: Analysis, keep: Keep, batches: list[Feed], tolerance: float) -> bool:
    pruned, kept = rewrite(model, analysis, keep)
    reference = zeroed(model, kept)
    for feed in batches:
        for y, wanted, original in zip(run(pruned, feed), run(reference, feed), run(model, feed), strict=True):
            if wanted.dtype.kind != "f":
                np.testing.assert_array_equal(y, wanted)
            elif np.isfinite(wanted).all():
                scale = max(np.abs(wanted).max(initial=0), np.abs(original).max(initial=0))
                np.testing.assert_allclose(y, wanted, rtol=0, atol=5 * tolerance * scale + 1e-6)
            else:
                return False
    return True


CHAIN = """g (float[N,6] x, float[6,16] w1, float[16,16] w2, float[16,4] w3) => (float[N,4] y)
    { a = MatMul(x, w1) b = Relu(a) c = MatMul(b, w2) d = Relu(c) y = MatMul(d, w3) }"""


def _chain() -> tuple[ir.Model, Analysis, Keep, list[Feed]]:
    model, analysis = studied(graph(CHAIN))
    return model, analysis, random_keep(analysis, 0.5, 0), feeds(model, 2, batch=3)


@pytest.mark.parametrize("channel", [0, 1])
def test_a_wrong_weight_is_found(monkeypatch: pytest.MonkeyPatch, channel: int) -> None:
    """One of the kept channels slightly off, by 1 %."""
    model, analysis, keep, batches = _chain()
    assert check(model, analysis, keep, batches, CONFIG).complaint is None

    def off(*arguments: object) -> tuple[ir.Model, Kept]:
        pruned, kept = rewrite(*arguments)
        value = pruned.graph.initializers["w2"]
        array = value.const_value.numpy().copy()
        array[channel] *= 1.01
        value.const_value = ir.tensor(array, name="w2")
        return pruned, kept

    monkeypatch.setattr(equivalence, "rewrite", off)
    assert "differs from the masked original" in (check(model, analysis, keep, batches, CONFIG).complaint or "")


def test_a_pruned_model_that_does_not_run_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model, analysis, keep, batches = _chain()

    def broken(*arguments: object) -> tuple[ir.Model, Kept]:
        pruned, kept = rewrite(*arguments)
        pruned.graph.initializers["w3"].const_value = ir.tensor(np.ones((16, 4), np.float32), name="w3")
        return pruned, kept

    monkeypatch.setattr(equivalence, "rewrite", broken)
    assert "does not run" in (check(model, analysis, keep, batches, CONFIG).complaint or "")


def test_keeping_everything_changes_nothing_and_says_so() -> None:
    model, analysis, _, batches = _chain()
    proof = check(model, analysis, {}, batches, CONFIG)
    assert proof.complaint is None
    assert not proof.changed


def test_rounding_that_the_model_amplifies_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """sin(300·c): an ulp of c is far more than 1e-5 of the result, as it is on a nudged feed."""
    model, analysis = studied(
        graph(
            """g (float[N,64] x, float[64,2000] w1, float[2000,64] w2, float w3) => (float[N,64] y)
            { a = MatMul(x, w1) b = Relu(a) c = MatMul(b, w2) d = Mul(c, w3) y = Sin(d) }""",
            w3=np.array(300, np.float32),
        )
    )
    keep, batches = random_keep(analysis, 0.5, 0), feeds(model, 2, batch=3)
    assert check(model, analysis, keep, batches, CONFIG).complaint is None
    monkeypatch.setattr(shared, "AMPLIFIED", 0)
    assert "differs" in (check(model, analysis, keep, batches, CONFIG).complaint or "")
