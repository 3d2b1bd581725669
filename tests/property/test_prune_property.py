"""Random networks, random prunings: proved, and running at every batch."""

from __future__ import annotations

import onnx_ir as ir
from graph_strategies import networks
from graphs import feeds, run
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pruning import CONFIG, random_keep, studied

from onnxcomp.passes.prune.equivalence import check
from onnxcomp.passes.prune.rewrite import rewrite


@given(model=networks(), ratio=st.sampled_from([0.2, 0.5, 0.8]), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_any_pruning_of_any_network_is_proved_and_runs_at_two_batches(model: ir.Model, ratio: float, seed: int) -> None:
    batches = [feeds(model, 1, batch=n)[0] for n in (1, 3)]
    model, analysis = studied(model, batches[1])
    assume(analysis.structure.cells)
    keep = random_keep(analysis, ratio, seed)
    proof = check(model, analysis, keep, batches, CONFIG)
    assert proof.complaint is None
    pruned, kept = rewrite(model, analysis, keep)
    assert any(name in pruned.graph.initializers for name in kept)
    for feed in batches:
        for y, x in zip(run(pruned, feed), run(model, feed), strict=True):
            assert y.shape == x.shape
            assert y.dtype == x.dtype
