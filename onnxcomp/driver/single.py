"""One pass with the user's numbers: no search, gates only where they were set, a loud warning where it is slower."""

from __future__ import annotations

import os
from typing import Any

import onnx_ir as ir

from onnxcomp.driver.conclusion import FINAL_SECONDS, handed_back
from onnxcomp.driver.evidence import Trials
from onnxcomp.driver.facts import with_provenance
from onnxcomp.driver.inside import look_inside
from onnxcomp.driver.latency import versus
from onnxcomp.driver.options import Options
from onnxcomp.driver.plans import check_origin, load_plan
from onnxcomp.driver.reporting import Measured, Subject, fill, gain
from onnxcomp.driver.result import Result
from onnxcomp.driver.steps import (
    CHANNELS,
    EXACT,
    EXACT_COSINE,
    MAX_ATTEMPTS,
    SLOWEST,
    batch_cosine,
    lacks_data,
    nothing_to_change,
)
from onnxcomp.driver.workbench import Workbench, prepare
from onnxcomp.errors import GateError, InternalError, ModelError, UsageError
from onnxcomp.evaluate.gates import Gates
from onnxcomp.evaluate.judge import Judgement
from onnxcomp.evaluate.proof import check_batches, check_structure
from onnxcomp.model.load import ModelSource
from onnxcomp.passes.base import CALIBRATION_HINT, Evidence, Pass, Plan, Proof
from onnxcomp.report.structures import StepReport, StepStatus, Verdict
from onnxcomp.report.text import plural

LOUD_COSINE = 0.99
"""Below it a warning says that `optimize` would not keep the result."""

EVEN_RELAXED = "it fails with the worst nodes in float too; `onnxcomp optimize` hands back the original instead"

HINTS = {
    "simplify": "`onnxcomp optimize` undoes what does not hold",
    "prune": "`onnxcomp optimize --prune auto` finds the largest cut with which the gate holds",
    "factorize": "`onnxcomp optimize --factorize auto` finds the lowest ranks with which the gate holds",
    "quantize": EVEN_RELAXED,
    "dynamic": EVEN_RELAXED,
    "weight-only": EVEN_RELAXED,
    "precision": EVEN_RELAXED,
}
"""What to do when a gate of the user's is not met, by pass."""

GIVES_BACK = frozenset({"quantize", "dynamic", "weight-only", "precision"})
"""Passes whose own numbers say nothing against leaving some nodes as they were, where a gate asks for it."""

Proved = tuple[ir.Model, Proof, Any, Judgement]

PlanSource = Plan | str | os.PathLike[str] | None


def run_single(
    step: Pass[Any],
    model: ModelSource,
    options: Options,
    plan: PlanSource = None,
    *,
    dry_run: bool = False,
    must_be_faster: bool = False,
) -> Result:
    """Plans (or replays `plan`), applies, proves, judges, measures.

    Args:
        plan: A plan of this pass, or the path of one.
        dry_run: Plan only.
        must_be_faster: A result that is slower than the original is refused.

    Raises:
        UsageError: The pass needs calibration data and there is none, or is of no use on the target.
        PlanError: The plan can't be read, or belongs to another pass or model.
        GateError: A gate that the user set is not met.
        InternalError: The result would not be valid.
    """
    if isinstance(plan, str | os.PathLike):
        plan = load_plan(plan, step)
    bench = prepare(model, options, Gates(options.min_cosine, options.max_drop))
    if step.name in bench.target.refuses:
        why, hint = bench.target.refuses[step.name]
        raise UsageError(f"{step.name} for {bench.target.name}: {why}", hint=hint)
    start = starting_form(step, bench)
    if plan is not None:
        check_origin(plan, step, start)
    if plan is None and lacks_data(step, bench):
        raise UsageError(f"{step.name} needs calibration data", hint=CALIBRATION_HINT)
    current: Any = plan if plan is not None else step.plan(start, bench.context)
    if dry_run:
        return _planned(step, current, bench)
    if not current.changes() and not options.fix_shape:
        why = nothing_to_change(current)
        report = StepReport(name=step.name, status=StepStatus.NOTHING_TO_DO, why=why, skips=current.left_alone())
        return handed_back(step.name, bench, [report], f"the original is handed back: {why}")
    candidate, proof, current, judgement = _proved(step, start, current, bench)
    asked = current.changes()
    if plan is None and step.name in GIVES_BACK:
        candidate, proof, current, judgement = _within_gates(step, start, (candidate, proof, current, judgement), bench)
    given_back = len(asked - current.changes())
    if not proof.passed:
        report = _step_report(step, current, proof, StepStatus.UNDONE, "; ".join(proof.sentences))
        return handed_back(step.name, bench, [report], f"the original is handed back: {report.why}")
    for gate in judgement.gates:
        if not gate.passed:
            raise GateError(f"{gate.sentence()}; nothing was written", hint=HINTS[step.name])
    timing = versus(bench, bench.loaded.model, candidate, FINAL_SECONDS)
    for sentence in current.warnings():
        bench.warn(sentence)
    if (shortfall := current.shortfall()) is not None:
        bench.warn(f"BUDGET NOT MET: {shortfall}")
    if must_be_faster and timing.speedup["after"] <= 1.0 and bench.target_is_host:
        raise GateError(
            f"the result is not faster: {timing.speedup['after']:.2f} × the speed of the original; nothing was written",
            hint="a smaller latency, other --round-to, or --macs, which keeps what you ask for",
        )
    if timing.speedup["after"] < SLOWEST and bench.target_is_host:
        bench.warn(f"SLOWER: the result runs {timing.speedup['after']:.2f} × as fast as the original on this machine")
    if judgement.error > 1 - LOUD_COSINE:
        bench.warn(
            f"an output has cosine {1 - judgement.error:.4f} to the original; `onnxcomp optimize` would not keep this"
        )
    told = f"as asked, but for {given_back} nodes that stay in float for the gates" if given_back else "as asked"
    report = _step_report(step, current, proof, StepStatus.KEPT, told)
    recipe = current.model_dump_json()
    named = with_provenance(candidate, bench.loaded, recipe, [step.name], bench.calibration_facts)
    result = Subject.in_memory(named)
    sentence = gain(bench, result, timing)
    measured = Measured(judgement, timing, *look_inside(bench, named))
    filled = fill(step.name, bench, Verdict.DONE, sentence, result, steps=[report], measured=measured)
    return Result(named, filled, current, bench.loaded.path)


def starting_form(step: Pass[Any], bench: Workbench) -> ir.Model:
    """The form of the model that a pass starts from: rewriting starts from the canonical one, what judges channels
    wants batch norms still there, and what replaces single operators wants them folded."""
    if step.name in EXACT:
        return bench.canonical
    return bench.folded if step.name in CHANNELS else bench.simplified


def _planned(step: Pass[Any], plan: Any, bench: Workbench) -> Result:
    report = _step_report(step, plan, None, StepStatus.PLANNED, plan.aim())
    sentence = f"{plural(len(plan.changes()), 'node')} would change; no model was written"
    source = Subject.of(bench.loaded)
    filled = fill(step.name, bench, Verdict.PLANNED, sentence, source, steps=[report])
    return Result(bench.loaded.model, filled, plan, bench.loaded.path)


def _step_report(step: Pass[Any], plan: Any, proof: Proof | None, status: StepStatus, why: str) -> StepReport:
    return StepReport(
        name=step.name,
        status=status,
        why=why,
        changed=len(plan.changes()),
        summary=proof.sentences if proof is not None else (),
        skips=plan.left_alone(),
        audit=proof.audit if proof is not None else None,
        channels=plan.channels(),
        layers=plan.factored(),
        ranges=plan.ranges(),
    )


def _proved(step: Pass[Any], start: ir.Model, plan: Any, bench: Workbench) -> Proved:
    """The candidate, valid and judged.

    Raises:
        InternalError: What the pass wrote is not valid, or does not run as the original does.
    """
    try:
        candidate, proof, plan = _applied(step, start, plan, bench)
        if step.name in CHANNELS:  # what was left for their sake can be folded now
            candidate = bench.rewritten(candidate)
        judgement = bench.judge.judge(candidate)
        exact, original = step.name in EXACT, bench.loaded.model
        wanted = EXACT_COSINE if exact else batch_cosine(judgement.error)
        complaint = check_structure(original, candidate, same_shapes=not bench.options.fix_shape)
        complaint = complaint or check_batches(
            original, candidate, bench.feed, bench.context.session, wanted, exact=exact
        )
    except ModelError as error:
        complaint = error.message
    if complaint is not None:
        hint = "the input is unchanged; please report this with the model"
        raise InternalError(f"the result would not be valid, so it was not written: {complaint}", hint=hint)
    return candidate, proof, plan, judgement


def _within_gates(step: Pass[Any], start: ir.Model, first: Proved, bench: Workbench) -> Proved:
    """The candidate with so much given back that the gates of the user hold; the last one tried, if none does."""
    candidate, proof, plan, judgement = first
    trials = Trials(step, start, bench)
    for _ in range(MAX_ATTEMPTS):
        if judgement.passed or not proof.passed:
            break
        relaxed = step.relax(plan, trials.evidence(plan, judgement))
        if relaxed is None:
            break
        candidate, proof, plan, judgement = _proved(step, start, relaxed, bench)
    return candidate, proof, plan, judgement


def _applied(step: Pass[Any], start: ir.Model, plan: Any, bench: Workbench) -> tuple[ir.Model, Proof, Any]:
    """The candidate with its proof, and the plan that stands: nodes that were changed in vain are taken out once."""
    candidate = step.apply(start, plan, bench.context)
    proof = step.prove(start, candidate, plan, bench.context)
    relaxed = step.relax(plan, Evidence("fusion", nodes=proof.unfused)) if proof.unfused else None
    if relaxed is None:
        return candidate, proof, plan
    candidate = step.apply(start, relaxed, bench.context)
    return candidate, step.prove(start, candidate, relaxed, bench.context), relaxed
