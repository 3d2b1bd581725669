"""The last word of `optimize`: the original against the whole result; what is not better is undone."""

from __future__ import annotations

from collections.abc import Sequence

from onnxcomp import __version__
from onnxcomp.driver.facts import host_line, versions, with_provenance
from onnxcomp.driver.inside import look_inside
from onnxcomp.driver.latency import versus
from onnxcomp.driver.options import Options
from onnxcomp.driver.reporting import Measured, Subject, fill, gain
from onnxcomp.driver.result import Result
from onnxcomp.driver.steps import StepResult, decide
from onnxcomp.driver.trial import NotRunnable
from onnxcomp.driver.workbench import Workbench, find_target
from onnxcomp.model.load import LoadedModel
from onnxcomp.report.structures import Note, Report, StepReport, StepStatus, Verdict

FINAL_SECONDS = 4.0
DYNAMIC_STILL = (
    "--fix-shape: the original is handed back, so its shapes are as dynamic as before; `onnxcomp simplify --fix-shape` "
    "makes them static whether or not anything is gained"
)
LEARNING = frozenset({"factorize", "precision", "prune", "quantize"})
"""Passes that learn from calibration feeds where there are some."""


def conclude(
    bench: Workbench,
    recipe: str,
    done: list[StepResult],
    steps: Sequence[StepReport],
    *,
    command: str = "optimize",
) -> Result:
    """Measures the whole result, longer than any step; undoes steps from the end while it is not better."""
    reason = "no step was kept"
    while done:
        current = done[-1].model
        judgement = bench.judge.judge(current)
        timing = versus(bench, bench.loaded.model, current, FINAL_SECONDS)
        names = [step.report.name for step in done]
        learned = bench.calibration_facts if LEARNING & set(names) else None
        result = Subject.in_memory(with_provenance(current, bench.loaded, recipe, names, learned))
        shrink = bench.loaded.bytes / result.size
        kept, reason = decide(
            timing, shrink, bench.options.goal, exact=False, measurable=bench.target_is_host, what="file"
        )
        failed = [g for g in judgement.gates if not g.passed]
        if kept and not failed:
            if timing.verdict == "UNSTABLE":
                bench.warn(f"latency not proven: {timing.reason}")
            sentence = gain(bench, result, timing)
            measured = Measured(judgement, timing, *look_inside(bench, result.model))
            report = fill(command, bench, Verdict.PASSED, sentence, result, steps=steps, measured=measured)
            return Result(result.model, report, done[-1].plan, bench.loaded.path)
        if failed:
            reason = failed[0].sentence()
        steps = _undone(steps, done.pop().report.name, reason)
    return handed_back(command, bench, steps, f"the original is handed back: {_why_nothing(steps, reason)}")


def handed_back(command: str, bench: Workbench, steps: Sequence[StepReport], sentence: str) -> Result:
    """The original as the result, with the reasons."""
    if bench.options.fix_shape:
        bench.warn(DYNAMIC_STILL)
    report = fill(command, bench, Verdict.NOTHING_GAINED, sentence, Subject.of(bench.loaded), steps=steps)
    return Result(bench.loaded.model, report, None, bench.loaded.path)


def unproved(loaded: LoadedModel, options: Options, error: NotRunnable) -> Result:
    """The original, because nothing could be shown of any other: no feed that it runs on is known."""
    facts = Subject.of(loaded).facts({})
    target, is_host = find_target(options.target, options.ep)
    report = Report(
        command="optimize",
        version=__version__,
        verdict=Verdict.NOTHING_GAINED,
        sentence=f"the original is handed back: {error.message}; {error.hint}",
        exit_code=0,
        target=target.name,
        target_is_host=is_host,
        host=host_line(),
        seed=options.seed,
        versions=versions(),
        source=facts,
        result=facts,
        notes=(Note(level="warning", sentence=DYNAMIC_STILL),) if options.fix_shape else (),
    )
    return Result(loaded.model, report, None, loaded.path)


def _undone(steps: Sequence[StepReport], name: str, reason: str) -> list[StepReport]:
    update = {"status": StepStatus.UNDONE, "why": f"the whole result was not better: {reason}"}
    return [s.model_copy(update=update) if s.name == name and s.status is StepStatus.KEPT else s for s in steps]


def _why_nothing(steps: Sequence[StepReport], reason: str) -> str:
    return "; ".join(f"{s.name}: {s.why}" for s in steps) or reason
