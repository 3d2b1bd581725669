"""The pass: static INT8 from calibration feeds."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir

from onnxcomp.errors import UsageError
from onnxcomp.model.cost import cost
from onnxcomp.ops.kernels import Role
from onnxcomp.passes.base import CALIBRATION_HINT, Context, Evidence, Proof, Survey, header
from onnxcomp.passes.products import already_quantized
from onnxcomp.passes.quantize.audit import audit, structure, unfused
from onnxcomp.passes.quantize.choices import choose_smoothing, improved, with_sensitivity
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.quantize.draft import NAME, draft, made_plan, with_tables, written
from onnxcomp.passes.quantize.placement import settle
from onnxcomp.passes.quantize.plan import QuantPlan
from onnxcomp.passes.quantize.relax import relaxed
from onnxcomp.passes.quantize.styles import sites_for
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import Skip

FIRST_OPSET = 13
"""The first with DequantizeLinear along an axis."""


class Quantize:
    """Static INT8: uint8 activations, int8 weights per output channel, as QDQ that ONNX Runtime fuses into integer
    kernels."""

    name = NAME
    needs_calibration = True
    plan_type = QuantPlan

    def __init__(self, config: QuantizeConfig | None = None) -> None:
        self.config = config or QuantizeConfig()

    def plan(self, model: ir.Model, ctx: Context) -> QuantPlan:
        """Chooses sites, watches their tensors over the calibration feeds, and fixes every scale.

        Raises:
            UsageError: No calibration feeds.
            DataError: The calibration set is empty or can't be read.
        """
        refusal = refused(model, ctx)
        if refusal is not None:
            return made_plan(header(self.name, model, ctx, (refusal,)))
        sites, skips = sites_for(ctx.target.int8.placement, model, ctx.only, ctx.exclude)
        settled = settle(sites)
        if not any(s.kernel.role is Role.WEIGHTED for s in settled):
            return made_plan(header(self.name, model, ctx, with_tables(skips, model, ())))
        if ctx.calibration is None:
            raise UsageError("static INT8 needs calibration data", hint=CALIBRATION_HINT)
        config = self.config
        preparation = choose_smoothing(config, model, settled, ctx)
        plan = draft(config, model, preparation, ctx)
        if config.correct == "auto":
            plan = improved(config, model, plan, preparation, ctx)
        return plan if config.sensitivity is None else with_sensitivity(model, plan, ctx, config.sensitivity)

    def apply(self, model: ir.Model, plan: QuantPlan, ctx: Context) -> ir.Model:
        """Writes the plan; needs no data."""
        return written(model, plan)

    def prove(self, before: ir.Model, after: ir.Model, plan: QuantPlan, ctx: Context) -> Proof:
        """Asks ONNX Runtime what it made of the result: which nodes run as integer kernels, which do not.

        For a machine whose compiler is not here, only the structure can be shown.
        """
        if ctx.target.provider != "cpu":
            return structure(after, plan, ctx.target)
        counted = cost(before, ctx.shapes)
        found = audit(after, plan, ctx.session, None if counted.macs_unknown else counted.by_node)
        left = unfused(found)
        integer, heavy = sum(found.integer_kernels.values()), sum(found.float_heavy.values())
        sentences = [f"{integer} integer kernels in the optimised graph, {heavy} heavy float operators"]
        own = Counter(node.op_type for node in after.graph if node.domain == "com.microsoft")
        if own:
            named = ", ".join(f"{count} {op_type}" for op_type, count in own.most_common())
            sentences.append(f"operators of ONNX Runtime's own, which tie the file to it (--portable: none): {named}")
        if plan.smoothing_choice:
            count = len(plan.smoothing)
            sentences.append(f"smoothed activations of products with matrices: {count} ({plan.smoothing_choice})")
        if plan.equalization:
            count = len(plan.equalization)
            sentences.append(f"equalised inputs of depthwise convolutions: {count} ({plan.equalization_choice})")
        if plan.range_choice:
            sentences.append(f"ranges by {plan.range_choice}")
        if plan.correction_choice:
            sentences.append(f"biases that make up for rounded weights: {plan.correction_choice}")
        if plan.tables:
            sentences.append(f"embedding tables read as int8 rows, with a scale for each: {len(plan.tables)}")
        if plan.padded:
            sentences.append(f"convolutions with input channels padded for the fast kernel: {len(plan.padded)}")
        return Proof(passed=bool(integer), sentences=tuple(sentences), audit=found, unfused=left)

    def relax(self, plan: QuantPlan, evidence: Evidence[QuantPlan]) -> QuantPlan | None:
        """The plan with its worst nodes in float again, or None when no weighted node would be left in INT8."""
        return relaxed(plan, evidence)


def refused(model: ir.Model, ctx: Context) -> Skip | None:
    """Why nothing of a model can be quantised; None where something may be."""
    already = already_quantized(model)
    if already:
        return already[0]
    if NAME in ctx.target.refuses:
        sentence = ctx.target.refuses[NAME][0]
        return Skip(node="", op_type="", code=Reason.NO_INTEGER_KERNEL, sentence=sentence)
    opset = model.opset_imports.get("", 0)
    if opset < FIRST_OPSET:
        sentence = f"scales for each channel need opset {FIRST_OPSET}; the model has {opset} and could not be lifted"
        return Skip(node="", op_type="", code=Reason.OPSET, sentence=sentence)
    return None


def survey(model: ir.Model, ctx: Context) -> Survey:
    """Where INT8 could go: the sites that stay in contiguous regions, and why the other nodes are none."""
    refusal = refused(model, ctx)
    if refusal is not None:
        return Survey(frozenset(), (refusal,))
    sites, skips = sites_for(ctx.target.int8.placement, model, ctx.only, ctx.exclude)
    settled = settle(sites)
    if not any(site.kernel.role is Role.WEIGHTED for site in settled):
        return Survey(frozenset(), tuple(skips))
    kept = {site.name for site in settled}
    border = (site.node for site in sites if site.name not in kept)
    sentence = DESCRIPTIONS[Reason.BORDER_COST]
    skips += [Skip(node=n.name or "", op_type=n.op_type, code=Reason.BORDER_COST, sentence=sentence) for n in border]
    absorbed = {node.name or "" for site in settled for node in site.absorbed}
    return Survey(frozenset(kept | absorbed), tuple(skip for skip in skips if skip.node not in absorbed))
