"""The last step of passes that remove something: what stays is fitted to the activations of the model before."""

from __future__ import annotations

import onnx_ir as ir

from onnxcomp.passes.base import Context
from onnxcomp.refit.refit import refit
from onnxcomp.refit.sites import Keep


def refitted(before: ir.Model, after: ir.Model, keep: Keep, wanted: str, ctx: Context) -> tuple[ir.Model, str]:
    """The model after the refit that a plan wants, and a sentence about it; empty if the plan wants none.

    Args:
        keep: For each value of `before` that lost something, the kept indices along each axis.
        wanted: "none", or the name of the refit in the plan.
    """
    if wanted == "none":
        return after, ""
    if ctx.calibration is None:
        return after, f"not refitted: the plan wants {wanted}, and there are no calibration feeds"
    outcome = refit(
        before,
        after,
        keep,
        ctx.calibration,
        ctx.session,
        progress=lambda done, total: ctx.progress("refitting", done, total),
    )
    return outcome.model, outcome.sentence
