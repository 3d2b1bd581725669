"""The pass: 16-bit floats wherever ranges and operators allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import onnx_ir as ir
from pydantic import Field

from onnxcomp.calibration.stream import observe
from onnxcomp.ops.attributes import qualified
from onnxcomp.ops.halves import HALVES, Half, HalfName
from onnxcomp.passes.base import Context, Evidence, Proof, header
from onnxcomp.passes.precision.flow import handed_out, is_worth, masks, regions
from onnxcomp.passes.precision.plan import NodePrecision, PrecisionPlan
from onnxcomp.passes.precision.proof import prove
from onnxcomp.passes.precision.relax import relaxed
from onnxcomp.passes.precision.verdicts import (
    Verdict,
    activations,
    by_operator,
    by_values,
    by_weights,
    candidates,
)
from onnxcomp.passes.precision.write import write_half
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import Record, Skip

FIRST_OPSET = 13
"""The first with probes, and with one form of the operators."""


class PrecisionConfig(Record):
    """Options of the pass. Inputs and outputs of the model always keep their types.

    Args:
        dtype: fp16 (float16, ten bits of fraction up to 65,504) or bf16 (bfloat16, seven bits up to 3.4e38).
        safety: Share of the type's range that the values seen in calibration may use.
    """

    kind: Literal["precision"] = Field(default="precision", alias="pass")
    dtype: HalfName = "fp16"
    safety: float = Field(default=0.5, gt=0, le=1)

    model_config = Record.model_config | {"populate_by_name": True}


class Precision:
    """float32 weights and activations in 16 bits, with casts only where a region stays float32."""

    name = "precision"
    needs_calibration = False
    plan_type = PrecisionPlan

    def __init__(self, config: PrecisionConfig | None = None) -> None:
        self.config = config or PrecisionConfig()

    def plan(self, model: ir.Model, ctx: Context) -> PrecisionPlan:
        """Asks for every node whether its operator, its constants and the values that it handles fit into 16 bits.

        Raises:
            DataError: The calibration set is empty or can't be read.
        """
        opset, half = model.opset_imports.get("", 0), HALVES[self.config.dtype]
        if opset < FIRST_OPSET:
            sentence = f"needs opset {FIRST_OPSET}; the model has {opset} and could not be lifted"
            skip = Skip(node="", op_type="", code=Reason.OPSET, sentence=sentence)
            return PrecisionPlan(**header(self.name, model, ctx, (skip,)), dtype=self.config.dtype)
        nodes = candidates(model.graph)
        kept = by_operator(nodes, model, half, ctx.only, ctx.exclude) | _given_out(model.graph, nodes)
        clamped, way = masks(model.graph, half)
        kept = by_weights([n for n in nodes if n not in kept], opset, half, clamped) | kept
        left = [n for n in nodes if n not in kept]
        watched = activations(left, opset, half)
        if ctx.calibration is not None and watched and any(map(is_worth, regions(left))):
            seen = observe(
                model,
                watched,
                ctx.calibration,
                ctx.session,
                progress=lambda done, total: ctx.progress("calibrating", done, total),
            )
            kept |= by_values(left, opset, half, seen, way, self.config.safety)
        kept |= _not_worth([n for n in nodes if n not in kept], half)
        halved = len(kept) < len(nodes)
        return PrecisionPlan(
            **header(self.name, model, ctx),
            dtype=self.config.dtype,
            nodes={n.name or "": _decision(n, kept.get(n)) for n in nodes},
            clamped=tuple(v.name or "" for v in model.graph.initializers.values() if v in clamped) if halved else (),
            calibrated=ctx.calibration is not None,
        )

    def apply(self, model: ir.Model, plan: PrecisionPlan, ctx: Context) -> ir.Model:
        """Writes the plan; needs no data."""
        return write_half(model, plan)

    def prove(self, before: ir.Model, after: ir.Model, plan: PrecisionPlan, ctx: Context) -> Proof:
        """Types agree, and the result runs and stays finite where the original is."""
        return prove(before, after, plan, ctx.session, ctx.feed)

    def relax(self, plan: PrecisionPlan, evidence: Evidence[PrecisionPlan]) -> PrecisionPlan | None:
        """The plan with its most costly nodes in float32 again, or None when none would be left in 16 bits."""
        return relaxed(plan, evidence)


def _given_out(graph: ir.Graph, nodes: Sequence[ir.Node]) -> dict[ir.Node, Verdict]:
    handed = handed_out(graph)
    verdict = Verdict(Reason.INSIDE_SUBGRAPH, "a body inside the graph gives out what it computes")
    return {node: verdict for node in nodes if handed.intersection(node.outputs)}


def _not_worth(nodes: Sequence[ir.Node], half: Half) -> dict[ir.Node, Verdict]:
    verdict = Verdict(Reason.BORDER_COST, f"its neighbours are float32: converting to {half.name} gains nothing")
    return {node: verdict for region in regions(nodes) if not is_worth(region) for node in region}


def _decision(node: ir.Node, verdict: Verdict | None) -> NodePrecision:
    if verdict is None:
        return NodePrecision(precision="half", op_type=qualified(node))
    return NodePrecision(precision="float", op_type=qualified(node), code=verdict.code, sentence=verdict.sentence)
