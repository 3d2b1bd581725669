"""One pass with the user's numbers: no search, gates only where they were set, a loud warning where it is slower."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxcomp.driver.conclusion import FINAL_SECONDS, handed_back
from onnxcomp.driver.facts import with_provenance
from onnxcomp.driver.latency import versus
from onnxcomp.driver.options import Options
from onnxcomp.driver.reporting import Measured, Subject, fill, gain
from onnxcomp.driver.result import Result
from onnxcomp.driver.steps import EXACT, EXACT_COSINE, SLOWEST, batch_cosine
from onnxcomp.driver.workbench import Workbench, prepare
from onnxcomp.errors import GateError, InternalError, ModelError, UsageError
from onnxcomp.evaluate.gates import Gates
from onnxcomp.evaluate.judge import Judgement
from onnxcomp.evaluate.proof import check_batches, check_structure
from onnxcomp.model.load import ModelSource
from onnxcomp.passes.base import Evidence, Pass, Plan, Proof
from onnxcomp.report.structures import StepReport, StepStatus, Verdict

LOUD_COSINE = 0.99
"""Below it a warning says that `optimize` would not keep the result."""

CALIBRATION_HINT = "give some with --calibration data.npz (or images:DIR, a folder of .npz, random:64)"


def run_single(step: Pass[Any], model: ModelSource, options: Options, plan: Plan | None) -> Result:
    """Plans (or replays `plan`), applies, proves, judges, measures.

    Raises:
        UsageError: The pass needs calibration data and there is none.
        GateError: A gate that the user set is not met.
        InternalError: The result would not be valid.
    """
    bench = prepare(model, options, Gates(options.min_cosine, options.max_drop))
    start = bench.canonical if step.name in EXACT else bench.simplified()
    if plan is None and step.needs_calibration and bench.calibration is None:
        raise UsageError(f"{step.name} needs calibration data", hint=CALIBRATION_HINT)
    current: Any = plan if plan is not None else step.plan(start, bench.context)
    if not current.changes() and not options.fix_shape:
        alone = current.skips[0].sentence if len(current.skips) == 1 else ""
        why = alone or "no node of this model can be changed by this pass"
        report = StepReport(name=step.name, status=StepStatus.NOTHING_TO_DO, why=why, skips=current.left_alone())
        return handed_back(step.name, bench, [report], f"the original is handed back: {why}")
    candidate, proof, current, judgement = _proved(step, start, current, bench)
    for gate in judgement.gates:
        if not gate.passed:
            hint = "`onnxcomp optimize` leaves the worst nodes in float until the gate holds"
            raise GateError(f"{gate.sentence()}; nothing was written", hint=hint)
    timing = versus(bench, bench.loaded.model, candidate, FINAL_SECONDS)
    if timing.speedup["after"] < SLOWEST and bench.target_is_host:
        bench.warn(f"SLOWER: the result runs {timing.speedup['after']:.2f} × as fast as the original on this machine")
    if judgement.error > 1 - LOUD_COSINE:
        bench.warn(
            f"an output has cosine {1 - judgement.error:.4f} to the original; `onnxcomp optimize` would not keep this"
        )
    report = StepReport(
        name=step.name,
        status=StepStatus.KEPT,
        why="as asked",
        changed=len(current.changes()),
        summary=proof.sentences,
        skips=current.left_alone(),
        audit=proof.audit,
    )
    recipe = current.model_dump_json()
    named = with_provenance(candidate, bench.loaded.sha256, recipe, [step.name], bench.calibration_facts)
    result = Subject.in_memory(named)
    sentence = gain(bench, result, timing)
    filled = fill(
        step.name, bench, Verdict.DONE, sentence, result, steps=[report], measured=Measured(judgement, timing)
    )
    return Result(named, filled, current, bench.loaded.path)


def _proved(step: Pass[Any], start: ir.Model, plan: Any, bench: Workbench) -> tuple[ir.Model, Proof, Any, Judgement]:
    """The candidate, valid and judged.

    Raises:
        InternalError: What the pass wrote is not valid, or does not run as the original does.
    """
    try:
        candidate, proof, plan = _applied(step, start, plan, bench)
        judgement = bench.judge.judge(candidate)
        wanted = EXACT_COSINE if step.name in EXACT else batch_cosine(judgement.error)
        complaint = check_structure(bench.loaded.model, candidate, same_shapes=not bench.options.fix_shape)
        complaint = complaint or check_batches(bench.loaded.model, candidate, bench.feed, bench.context.session, wanted)
    except ModelError as error:
        complaint = error.message
    if complaint is not None:
        hint = "the input is unchanged; please report this with the model"
        raise InternalError(f"the result would not be valid, so it was not written: {complaint}", hint=hint)
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
