"""Running the weight-only pass on a textual graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
from graphs import context, feeds

from onnxcomp.calibration.readers import Feed
from onnxcomp.model.normalize import normalize
from onnxcomp.passes.base import Context
from onnxcomp.passes.weight_only.config import WeightOnlyConfig
from onnxcomp.passes.weight_only.plan import WeightOnlyPlan
from onnxcomp.passes.weight_only.weight_only import WeightOnly

CHAIN = """g (float[N,5,64] x, float[64,48] w1, float[48] wb1, float[48,32] w2) => (float[N,5,32] y) {
    [first] a = MatMul(x, w1) [bias] b = Add(a, wb1) c = Relu(b) [second] y = MatMul(c, w2)
}"""


def correlated(model: ir.Model, count: int = 20, *, batch: int = 8, rank: int = 6) -> list[Feed]:
    """Feeds whose rows lie near a space of few dimensions, as activations of real networks do."""
    rng = np.random.default_rng(5)
    (value,) = model.graph.inputs
    shape = [d if isinstance(d, int) else batch for d in value.shape]
    basis = rng.standard_normal((rank, shape[-1]))
    return [
        {
            value.name: (rng.standard_normal([*shape[:-1], rank]) @ basis + 0.1 * rng.standard_normal(shape)).astype(
                np.float32
            )
        }
        for _ in range(count)
    ]


def weight_only(
    model: ir.Model, items: list[Feed] | None = None, *, data: bool = False, portable: bool = False, **config: object
) -> tuple[ir.Model, WeightOnlyPlan, ir.Model, Context]:
    """Canonical model, plan, result, context."""
    before = normalize(model).model
    ctx = context(items if items is not None else feeds(before, batch=2))
    ctx = replace(ctx, portable=portable, calibration=ctx.calibration if data else None)
    step = WeightOnly(WeightOnlyConfig(**{"smallest": 1} | config))  # type: ignore[arg-type]
    plan = step.plan(before, ctx)
    return before, plan, step.apply(before, plan, ctx), ctx
