"""Whatever network is drawn: the same outputs, the same signature, and never a larger file."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from graph_strategies import networks
from graphs import context, feeds, run
from hypothesis import HealthCheck, given, settings

from onnxcomp.model.normalize import normalize
from onnxcomp.model.save import serialize
from onnxcomp.model.signature import signature
from onnxcomp.passes.simplify.simplify import FEW_BYTES, Simplify


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(networks())
def test_a_simplified_network_computes_the_same_and_is_never_larger(model: ir.Model):
    feed = feeds(model, 1, batch=2)[0]
    before = normalize(model).model
    step, ctx = Simplify(), context([feed])
    plan = step.plan(before, ctx)
    after = step.apply(before, plan, ctx)
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    assert len(serialize(after)) <= len(serialize(before)) + FEW_BYTES
    assert [p.name for p in signature(after).inputs] == [p.name for p in signature(model).inputs]
    assert [p.name for p in signature(after).outputs] == [p.name for p in signature(model).outputs]
    assert len(list(after.graph)) <= len(list(before.graph))
    assert plan.edits or len(list(after.graph)) == len(list(before.graph))
    for a, b in zip(run(model, feed), run(after, feed), strict=True):
        # Sums run in another order: the error is that of the largest terms, not of a result that they cancel to.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(a).max())))
