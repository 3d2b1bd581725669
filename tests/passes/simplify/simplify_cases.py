"""What the tests of the rules share: simplify a graph and hold it against ONNX Runtime on the graph as it was."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from graphs import context, feeds, run

from onnxcomp.calibration.readers import Feed
from onnxcomp.model.normalize import normalize
from onnxcomp.model.save import serialize
from onnxcomp.passes.simplify.simplify import FEW_BYTES, POOLING_BYTES, Simplify, SimplifyConfig, SimplifyPlan
from onnxcomp.report.reasons import Reason

# New weights are rounded once, and sums run in another order: a few units in the last place of the largest term.
TOLERANCE = {"rtol": 2e-5, "atol": 2e-5}


def simplified(
    model: ir.Model, *, feed: Feed | None = None, batch: int = 3, exclude: tuple[str, ...] = (), **config: object
) -> tuple[SimplifyPlan, ir.Model]:
    """Normalizes and simplifies; checks outputs, signature, validity and that the file did not grow."""
    feed = feed or feeds(model, 1, batch=batch)[0]
    before = normalize(model).model
    step, ctx = Simplify(SimplifyConfig(**config)), context([feed])
    ctx = ctx.__class__(**{**ctx.__dict__, "exclude": exclude})
    source = serialize(before)
    plan = step.plan(before, ctx)
    after = step.apply(before, plan, ctx)
    assert serialize(before) == source, "the argument was changed"
    pools = sum(e.action == "written as pooling" for e in plan.edits)
    assert len(serialize(after)) <= len(source) + FEW_BYTES + POOLING_BYTES * pools, "the file grew"
    assert [v.name for v in after.graph.inputs] == [v.name for v in before.graph.inputs]
    assert [v.name for v in after.graph.outputs] == [v.name for v in before.graph.outputs]
    onnx.checker.check_model(ir.to_proto(after))
    for a, b in zip(run(model, feed), run(after, feed), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, **TOLERANCE)
    return plan, after


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def codes(plan: SimplifyPlan) -> dict[str, Reason]:
    """Reason by operator type."""
    return {skip.op_type: skip.code for skip in plan.skips}
