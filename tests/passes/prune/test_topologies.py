"""The test bed itself: a topology that doesn't run, or whose output says nothing, would prove nothing about pruning."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import run
from prune_topologies import TOPOLOGIES, feed_of

MAX_PARAMETERS = 3_000_000


def _is_dynamic(model: ir.Model) -> bool:
    return any(not isinstance(d, int) for v in model.graph.inputs for d in v.shape or ())


def test_there_are_enough_topologies() -> None:
    assert len(TOPOLOGIES) >= 60


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_topology_runs_and_is_not_trivial(name: str) -> None:
    """Valid, small, and every output is finite, varies within itself, and follows the feed."""
    model = TOPOLOGIES[name].build()
    onnx.checker.check_model(ir.to_proto(model))
    assert sum(math.prod(v.shape.numpy()) for v in model.graph.initializers.values() if v.shape) < MAX_PARAMETERS
    for batch in (1, 3) if _is_dynamic(model) else (1,):
        outputs = run(model, feed_of(model, batch))
        others = run(model, feed_of(model, batch, seed=1))
        for output, other in zip(outputs, others, strict=True):
            assert np.all(np.isfinite(output))
            assert 0.02 < np.abs(output).max() < 1e3
            assert output.size == 1 or np.ptp(output) > 1e-2
            assert np.abs(output - other).max() > 1e-2, "the output doesn't depend on the feed"


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_a_sample_does_not_depend_on_its_batch(name: str) -> None:
    """A baked batch of 1 would show here: the rows of a batch of 3 are what three batches of 1 give."""
    model = TOPOLOGIES[name].build()
    if not _is_dynamic(model):
        pytest.skip("static batch")
    feed = feed_of(model, 3)
    axes = {v.name: _batch_axis(v) for v in model.graph.inputs}
    single = {k: v if axes[k] is None else np.take(v, [1], axes[k]) for k, v in feed.items()}
    for value, whole, row in zip(model.graph.outputs, run(model, feed), run(model, single), strict=True):
        np.testing.assert_allclose(np.take(whole, [1], _batch_axis(value)), row, rtol=1e-3, atol=1e-3)


def _batch_axis(value: ir.Value) -> int | None:
    return next((i for i, d in enumerate(value.shape or ()) if str(d) == "N"), None)


def test_builders_are_deterministic() -> None:
    for name in ("resnet_with_batch_norm", "bert", "qdq_convs"):
        first, second = (ir.to_proto(TOPOLOGIES[name].build()).SerializeToString() for _ in range(2))
        assert first == second
