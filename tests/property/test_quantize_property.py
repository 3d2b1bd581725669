"""Claims about the INT8 pass that hold for every network."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
from graphs import context, cosine, feeds, run
from hypothesis import HealthCheck, given, settings

from onnxcomp.model.normalize import normalize
from onnxcomp.model.save import serialize
from onnxcomp.ops.kernels import CPU_KERNELS, Role
from onnxcomp.passes.quantize.plan import QuantPlan
from onnxcomp.passes.quantize.quantize import Quantize
from onnxcomp.runtime.audit import optimized_graph

sys.path.insert(0, str(Path(__file__).parent))
from quantize_strategies import networks

EVERY_MACHINE = "cpu-avx2"


def in_vain(plan: QuantPlan, after: ir.Model) -> set[str]:
    """Nodes that the plan put into INT8 and that the optimised graph still holds as float arithmetic."""
    arithmetic = {name for name, kernel in CPU_KERNELS.items() if kernel.role is not Role.CARRIED}
    return {n.name for n in optimized_graph(after).graph if n.op_type in arithmetic} & plan.changes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_a_quantised_network_keeps_its_signature_stays_close_and_converts_nothing_in_vain(model):
    before = normalize(model).model
    items = feeds(before, 4, batch=2)
    ctx = context(items, EVERY_MACHINE)
    step = Quantize()
    plan = step.plan(before, ctx)
    after = step.apply(before, plan, ctx)

    assert [(v.name, v.dtype) for v in (*after.graph.inputs, *after.graph.outputs)] == [
        (v.name, v.dtype) for v in (*before.graph.inputs, *before.graph.outputs)
    ]
    for item in items[:2]:
        for y, z in zip(run(before, item), run(after, item), strict=True):
            assert (y.shape, y.dtype) == (z.shape, z.dtype)
            if np.abs(y).max() > 1e-6:
                assert cosine(y, z) >= 0.9

    proof = step.prove(before, after, plan, ctx)
    assert proof.unfused == ()
    assert proof.passed == bool(plan.changes())
    assert in_vain(plan, after) == set()
    assert serialize(step.apply(before, QuantPlan.model_validate_json(plan.model_dump_json()), ctx)) == serialize(after)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_any_node_of_a_plan_can_be_set_back_to_float(model):
    before = normalize(model).model
    items = feeds(before, 2)
    ctx = context(items, EVERY_MACHINE)
    step = Quantize()
    plan = step.plan(before, ctx)
    for name in sorted(plan.changes()):
        edited = step.apply(before, plan.with_float(frozenset({name}), "relaxed", "by hand"), ctx)
        for y, z in zip(run(before, items[0]), run(edited, items[0]), strict=True):
            assert y.shape == z.shape
            if np.abs(y).max() > 1e-6:
                assert cosine(y, z) >= 0.9
