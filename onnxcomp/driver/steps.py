"""One step behind its gates: plan, apply, prove, judge, measure; relaxed where it fails, else undone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxcomp.driver.evidence import Trials
from onnxcomp.driver.latency import versus
from onnxcomp.driver.options import Goal
from onnxcomp.driver.workbench import Workbench
from onnxcomp.errors import LimitError, OnnxcompError
from onnxcomp.evaluate.proof import check_batches, check_structure
from onnxcomp.model.save import weight_bytes
from onnxcomp.passes.base import CALIBRATION_HINT, Evidence, Pass, Plan, Proof
from onnxcomp.report.structures import Attempt, Benchmark, StepReport, StepStatus

MAX_ATTEMPTS = 8
STEP_SECONDS = 1.5
SLOWEST = 0.97
GAIN = 1.03
EXACT = frozenset({"simplify"})
"""Passes that only rewrite: their steps need no gain of their own, since others build on them."""

CHANNELS = frozenset({"prune"})
"""Passes that judge channels: they start before weights are folded into each other."""

ATTEMPTS = {"factorize": 3, "prune": 3}
"""Of passes whose attempts take long, because each one refits weights; `MAX_ATTEMPTS` for the others."""

EXACT_COSINE = 0.9999
"""What two versions of the same computation must reach at twice the batch; a lossy step is held to its own gate."""


@dataclass
class StepResult:
    """The model after a step (the one before it, if the step was undone), the report, and the plan that stands."""

    model: ir.Model
    report: StepReport
    plan: Plan | None


def run_step(
    step: Pass[Any],
    model: ir.Model,
    bench: Workbench,
    *,
    exact: bool,
    plan: Plan | None = None,
    most: int | None = None,
) -> StepResult:
    """Runs one pass on `model` behind the gates of `optimize`.

    Args:
        step: The pass.
        model: Result of the steps before.
        bench: The job.
        exact: The step only rewrites: it need not gain anything by itself, since others build on it.
        plan: Replay this one instead of making one.
        most: Attempts at most.
    """
    start = time.monotonic()
    if plan is None and lacks_data(step, bench):
        return not_run(step, model, f"needs calibration data: {CALIBRATION_HINT}")
    current: Plan = plan if plan is not None else step.plan(model, bench.context)
    if not current.changes():
        return not_run(step, model, nothing_to_change(current), current, start)
    trials = Trials(step, model, bench)
    attempts: list[Attempt] = []
    description = "as planned"
    for _ in range(most or ATTEMPTS.get(step.name, MAX_ATTEMPTS)):
        candidate, proof, attempt, evidence = _attempt(trials, current, exact, description)
        attempts.append(attempt)
        if attempt.kept:
            report = StepReport(
                name=step.name,
                status=StepStatus.KEPT,
                why=attempt.why,
                changed=len(current.changes()),
                summary=proof.sentences,
                attempts=tuple(attempts),
                skips=current.left_alone(),
                audit=proof.audit,
                channels=current.channels(),
                layers=current.factored(),
                ranges=current.ranges(),
                elapsed_s=_since(start),
            )
            for sentence in current.warnings():
                bench.warn(sentence)
            return StepResult(candidate, report, current)
        relaxed = None if evidence is None else step.relax(current, evidence)
        if relaxed is None:
            break
        given_back = len(current.changes() - relaxed.changes())
        description = f"relaxed, nodes left as they were: {given_back}" if given_back else "with other ranges or rules"
        current = relaxed
    report = StepReport(
        name=step.name,
        status=StepStatus.UNDONE,
        why=attempts[-1].why,
        attempts=tuple(attempts),
        skips=current.left_alone(),
        channels=current.channels(),
        layers=current.factored(),
        ranges=current.ranges(),
        elapsed_s=_since(start),
    )
    return StepResult(model, report, None)


def lacks_data(step: Pass[Any], bench: Workbench) -> bool:
    """The pass learns from calibration feeds, and there are none."""
    return step.needs_calibration and bench.calibration is None


def not_run(
    step: Pass[Any], model: ir.Model, why: str, plan: Plan | None = None, start: float | None = None
) -> StepResult:
    """A step that changes nothing, with the reasons of its plan, if there is one."""
    skips = plan.left_alone() if plan is not None else ()
    elapsed = _since(start) if start is not None else 0.0
    report = StepReport(name=step.name, status=StepStatus.NOTHING_TO_DO, why=why, skips=skips, elapsed_s=elapsed)
    return StepResult(model, report, None)


def _attempt(
    trials: Trials, plan: Any, exact: bool, description: str
) -> tuple[ir.Model, Proof, Attempt, Evidence[Any] | None]:
    """One try: the candidate, its proof, what happened, and the evidence to relax by if it was not kept."""
    step, model, bench = trials.step, trials.model, trials.bench

    def refused(
        why: str, evidence: Evidence[Any] | None, **found: Any
    ) -> tuple[ir.Model, Proof, Attempt, Evidence[Any] | None]:
        return candidate, proof, Attempt(description=description, kept=False, why=why, **found), evidence

    proof = Proof(False, ())
    candidate = model
    try:
        candidate = step.apply(model, plan, bench.context)
        complaint = check_structure(bench.loaded.model, candidate, same_shapes=not bench.options.fix_shape)
        if complaint is not None:
            return refused(complaint, Evidence("proof"))
        proof = step.prove(model, candidate, plan, bench.context)
        if proof.unfused:
            return refused(
                f"nodes that did not become integer kernels: {len(proof.unfused)}",
                Evidence("fusion", nodes=proof.unfused),
            )
        if not proof.passed:
            return refused("; ".join(proof.sentences), Evidence("proof"))
        judgement = bench.judge.judge(candidate)
    except LimitError:
        raise
    except OnnxcompError as error:
        return refused(f"the result does not work: {error.message}", Evidence("proof"))
    found: dict[str, Any] = {"gates": judgement.gates, "fidelity": judgement.fidelity, "bytes": weight_bytes(candidate)}
    if not judgement.passed:
        failed = next(g for g in judgement.gates if not g.passed)
        why = failed.sentence()
        return refused(why, trials.evidence(plan, judgement), **found)
    # A rewrite must equal what it rewrote, which earlier steps may have moved away from the original.
    reference, wanted = (model, EXACT_COSINE) if exact else (bench.loaded.model, batch_cosine(judgement.error))
    batches = check_batches(reference, candidate, bench.feed, bench.context.session, wanted, exact=exact)
    if batches is not None:
        return refused(batches, Evidence("proof"), **found)
    timing = versus(bench, model, candidate, STEP_SECONDS)
    speedup = timing.speedup["after"]
    kept, why = decide(
        timing, weight_bytes(model) / max(1, weight_bytes(candidate)), bench.options.goal, exact, bench.target_is_host
    )
    attempt = Attempt(description=description, kept=kept, why=why, speedup=speedup, **found)
    return candidate, proof, attempt, None if kept else Evidence("latency")


def decide(
    timing: Benchmark, shrink: float, goal: Goal, exact: bool, measurable: bool, what: str = "weights"
) -> tuple[bool, str]:
    """Whether a step is kept for its latency and size, and the sentence that says why.

    Args:
        timing: Before and after, interleaved.
        shrink: Bytes before / after, of `what`.
        goal: balanced: not slower than 0.97 ×, and smaller or faster by 3 %. latency: faster. size: smaller; may be
            slower.
        exact: An exact rewrite needs no gain, and is slower only when all of its interval is.
        measurable: The target is this machine; elsewhere only size can be shown.
    """
    speedup = timing.speedup["after"]
    smaller = shrink >= GAIN
    size = _sized(shrink, what)
    figures = f"{speedup:.2f} × as fast, {size}"
    if not measurable:
        return smaller or exact, f"{size}; latency is unverified for this target"
    if goal == "size":
        return smaller or exact, figures
    if timing.verdict == "UNSTABLE":
        if timing.interval["after"][1] < SLOWEST:  # however unstable, all of the interval is slower
            return False, f"slower: {figures}"
        if goal == "latency" and not exact:
            return False, f"latency not proven: {timing.reason}"
        return smaller or exact, f"{size}; latency not proven: {timing.reason}"
    # ONNX Runtime does most exact rewrites itself when it loads a model: no difference is expected, and one that may be
    # noise must not take the ground from the steps that build on it.
    if (timing.interval["after"][1] if exact else speedup) < SLOWEST:
        return False, f"slower: {figures}"
    if exact:
        return True, figures
    # A gain in speed alone has to be one over the whole interval: 3 % is within reach of noise.
    faster = speedup >= GAIN and timing.interval["after"][0] > 1.0
    return faster or (smaller and goal != "latency"), figures


def _sized(shrink: float, what: str) -> str:
    """`1.44 × smaller weights`; what got larger is not called smaller."""
    if 0.995 < shrink < 1.005:
        return f"{what} of the same size"
    return f"{shrink:.2f} × smaller {what}" if shrink > 1 else f"{1 / shrink:.2f} × larger {what}"


def batch_cosine(error: float) -> float:
    """What a lossy result with `error` on the feeds must reach at twice the batch: about the same."""
    return 1.0 - 3 * error - 1e-3


def nothing_to_change(plan: Plan) -> str:
    """Why a plan does nothing, in one sentence: the only skip there is, or what became of a budget."""
    alone = plan.skips[0].sentence if len(plan.skips) == 1 else ""
    # A budget is a sentence of its own where there was something to spend it on.
    spent = plan.aim() if plan.channels() or plan.factored() else ""
    return spent or alone or "no node of this model can be changed by this pass"


def _since(start: float) -> float:
    return round(time.monotonic() - start, 3)
