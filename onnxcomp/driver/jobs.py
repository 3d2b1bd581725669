"""The jobs behind the verbs: optimize, simplify, quantize, verify, bench. Each prepares, runs, and fills a report; none prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxcomp import __version__
from onnxcomp.driver.facts import host_line, model_facts, versions, with_provenance
from onnxcomp.driver.latency import measure
from onnxcomp.driver.options import Options
from onnxcomp.driver.result import Result
from onnxcomp.driver.steps import SLOWEST, StepResult, decide, run_step
from onnxcomp.driver.workbench import Workbench, data_facts, prepare
from onnxcomp.errors import GateError, ModelError, UsageError
from onnxcomp.evaluate.gates import Gates
from onnxcomp.evaluate.proof import check_batches, check_structure
from onnxcomp.model.load import ModelSource
from onnxcomp.model.save import serialize, weight_bytes
from onnxcomp.passes.base import Evidence, Pass, Plan
from onnxcomp.passes.quantize.quantize import Quantize, QuantizeConfig
from onnxcomp.passes.simplify.simplify import Simplify, SimplifyConfig
from onnxcomp.recipe import load_recipe
from onnxcomp.report.structures import Benchmark, Note, Report, StepReport, StepStatus, Verdict

DEFAULT_MIN_COSINE = 0.99
DEFAULT_MAX_DROP = 0.01
FINAL_SECONDS = 4.0
EXACT = frozenset({"simplify"})
"""Passes that only rewrite: their steps need no gain of their own."""


def optimize(
    model: ModelSource, calibration: object | None = None, eval: object | None = None, **options: Any
) -> Result:
    """The whole job: runs a recipe step by step, each step behind its gates, and always ends with a model that is no worse than the input.

    Args:
        model: Path, bytes, `onnx.ModelProto` or `onnx_ir.Model`.
        calibration: Feeds to learn from: any re-iterable of `dict[str, ndarray]`, ORT's `CalibrationDataReader`, a torch DataLoader, or a
            SPEC as on the command line. Without: the model is only simplified.
        eval: Feeds to judge by; default: the last fifth of the calibration feeds.
        **options: The fields of `onnxcomp.driver.options.Options`.

    Returns:
        The result with its report; the verdict says whether anything was gained.

    Raises:
        onnxcomp.errors.OnnxcompError: With the exit code of the command line.
    """
    chosen = Options(calibration=calibration, eval=eval, **_checked_options(options))
    recipe = load_recipe(chosen.recipe)
    gates = Gates(
        min_cosine=_first(chosen.min_cosine, recipe.gates.min_cosine),
        max_drop=_first(chosen.max_drop, recipe.gates.max_drop),
    )
    bench = prepare(model, chosen, gates)
    bench.judge.gates = _default_gates(gates, bench)
    current = bench.canonical
    done: list[tuple[StepResult, ir.Model]] = []
    steps: list[StepReport] = []
    for config in recipe.step:
        step = _pass(config)
        if step.needs_calibration and bench.calibration is None:
            steps.append(
                StepReport(
                    name=step.name,
                    status=StepStatus.NOTHING_TO_DO,
                    why="needs calibration data: give some with --calibration",
                )
            )
            continue
        result = run_step(step, current, bench, exact=step.name in EXACT)
        steps.append(result.report)
        if result.report.status is StepStatus.KEPT:
            done.append((result, current))
            current = result.model
    return _concluded(bench, recipe.canonical(), done, steps, current)


def simplify(
    model: ModelSource,
    calibration: object | None = None,
    eval: object | None = None,
    *,
    plan: Plan | None = None,
    **options: Any,
) -> Result:
    """Exact rewrites: constants and shape arithmetic folded, batch norms and pads folded into weights, what does nothing removed.

    Args and raises: as `optimize`; `plan` replays one.
    """
    return _single(Simplify(SimplifyConfig()), model, calibration, eval, plan, options)


def quantize(
    model: ModelSource,
    calibration: object | None = None,
    eval: object | None = None,
    *,
    ranges: str = "mse",
    plan: Plan | None = None,
    **options: Any,
) -> Result:
    """Static INT8 with the numbers that you gave; the model is simplified first.

    Args:
        ranges: How activation ranges are chosen: mse, minmax, percentile.
        plan: Replay this plan; needs no calibration data.

    Other args and raises: as `optimize`.
    """
    return _single(Quantize(QuantizeConfig(ranges=ranges)), model, calibration, eval, plan, options)  # type: ignore[arg-type]


def plan_of(step: Pass[Any], model: ModelSource, options: Options) -> tuple[Plan, Workbench]:
    """What a pass would do, without doing it (`--dry-run`)."""
    bench = prepare(model, options, Gates())
    return step.plan(_prepared_for(step, bench), bench.context), bench


def verify(model: ModelSource, against: ModelSource, eval: object | None = None, **options: Any) -> Report:
    """The gates alone: is `model` as close to `against` as asked? The report's exit code is 1 if not."""
    chosen = Options(eval=eval, **_checked_options(options))
    bench = prepare(against, chosen, Gates(chosen.min_cosine, chosen.max_drop))
    bench.judge.gates = _default_gates(bench.judge.gates, bench)
    other = prepare_candidate(model, bench)
    complaint = check_structure(bench.loaded.model, other[0])
    if complaint is not None:
        raise ModelError(
            f"the two models can't be compared: {complaint}",
            hint="verify compares models with the same inputs and outputs",
        )
    judgement = bench.judge.judge(other[0])
    batches = check_batches(
        bench.loaded.model, other[0], bench.feed, bench.context.session, 1.0 - 3 * judgement.error - 1e-3
    )
    if batches is not None:
        bench.warn(batches)
    passed = judgement.passed and batches is None
    failed = [g for g in judgement.gates if not g.passed]
    sentence = (
        "all gates hold"
        if passed
        else "; ".join(
            [*(f"{g.name} is {g.value:.4f}, wanted {g.wanted}" for g in failed), *([batches] if batches else [])]
        )
    )
    return _report(
        "verify", bench, Verdict.PASSED if passed else Verdict.FAILED, sentence, result=(other[0], *other[1:]), fidelity=judgement.fidelity,
        metric=judgement.metric, gates=judgement.gates, exit_code=0 if passed else GateError.exit_code,
    )  # fmt: skip


def bench(
    models: Sequence[ModelSource],
    calibration: object | None = None,
    *,
    min_seconds: float = FINAL_SECONDS,
    **options: Any,
) -> Benchmark:
    """Honest latency of several models with the same inputs, interleaved; speed-ups are over the first."""
    chosen = Options(eval=calibration, **_checked_options(options))
    first = prepare(models[0], chosen, Gates())
    named: dict[str, ir.Model | bytes | Path] = {first.loaded.name: first.loaded.model}
    for source in models[1:]:
        candidate, name, _, _ = prepare_candidate(source, first)
        complaint = check_structure(first.loaded.model, candidate) if len(models) > 1 else None
        if complaint is not None:
            raise UsageError(f"{name} can't be timed on the feeds of {first.loaded.name}: {complaint}")
        while name in named:
            name += "'"
        named[name] = candidate
    return measure(
        named, first.feed, first.context.session, first.clock, min_seconds=min_seconds, attempts=3, keep_samples=True
    )


def prepare_candidate(source: ModelSource, bench: Workbench) -> tuple[ir.Model, str, str, int]:
    """Loads a second model through the door and tries it in a child process: (model, name, sha256, bytes)."""
    from onnxcomp.model.load import load
    from onnxcomp.runtime.child import probe
    from onnxcomp.runtime.library import version

    loaded = load(source, ort_version=version())
    probe(loaded.model, config=bench.context.session)
    return loaded.model, loaded.name, loaded.sha256, loaded.bytes


def _single(
    step: Pass[Any],
    model: ModelSource,
    calibration: object | None,
    eval: object | None,
    plan: Plan | None,
    options: Mapping[str, Any],
) -> Result:
    """One pass with the user's numbers: gates only where the user set them, a loud warning where the result is slower."""
    chosen = Options(calibration=calibration, eval=eval, **_checked_options(options))
    bench = prepare(model, chosen, Gates(chosen.min_cosine, chosen.max_drop))
    start = _prepared_for(step, bench)
    if plan is None and step.needs_calibration and bench.calibration is None:
        raise UsageError(
            f"{step.name} needs calibration data",
            hint="give some with --calibration data.npz (or images:DIR, a folder of .npz, random:64)",
        )
    current: Any = plan if plan is not None else step.plan(start, bench.context)
    if not current.changes():
        report = StepReport(
            name=step.name, status=StepStatus.NOTHING_TO_DO, why=_nothing(current), skips=current.left_alone()
        )
        return _handed_back(bench, step.name, [report], f"nothing to do: {_nothing(current)}")
    candidate = step.apply(start, current, bench.context)
    proof = step.prove(start, candidate, current, bench.context)
    if proof.unfused:
        relaxed = step.relax(current, Evidence("fusion", nodes=proof.unfused))
        if relaxed is not None:
            current = relaxed
            candidate = step.apply(start, current, bench.context)
            proof = step.prove(start, candidate, current, bench.context)
    complaint = check_structure(bench.loaded.model, candidate)
    judgement = bench.judge.judge(candidate)
    batches = check_batches(
        bench.loaded.model, candidate, bench.feed, bench.context.session, min(0.9, 1.0 - 3 * judgement.error - 1e-3)
    )
    if complaint or batches:
        raise ModelError(
            f"the result would not be valid, so it was not written: {complaint or batches}",
            hint="please report this with the model; the input is unchanged",
        )
    failed = [g for g in judgement.gates if not g.passed]
    if failed:
        raise GateError(
            f"{failed[0].name} is {failed[0].value:.4f}, wanted {failed[0].wanted}; nothing was written",
            hint="`onnxcomp optimize` leaves the worst nodes in float until the gate holds",
        )
    timing = measure(
        {"before": bench.loaded.model, "after": candidate},
        bench.feed,
        bench.context.session,
        bench.clock,
        min_seconds=FINAL_SECONDS,
        attempts=3,
    )
    if timing.speedup["after"] < SLOWEST:
        bench.warn(f"SLOWER: the result runs {timing.speedup['after']:.2f} × as fast as the original on this machine")
    if judgement.error > 1 - DEFAULT_MIN_COSINE:
        bench.warn(
            f"an output has cosine {1 - judgement.error:.4f} to the original; `onnxcomp optimize` would not keep this"
        )
    report = StepReport(
        name=step.name, status=StepStatus.KEPT, why="as asked", changed=len(current.changes()), summary=proof.sentences,
        skips=current.left_alone(), audit=proof.audit,
    )  # fmt: skip
    facts = data_facts(bench.calibration)
    result = with_provenance(candidate, bench.loaded.sha256, current.model_dump_json(), [step.name], facts)
    filled = _report(
        step.name, bench, Verdict.DONE, _gain_sentence(bench, candidate, timing), steps=(report,), result=_in_memory(result), timing=timing,
        fidelity=judgement.fidelity, metric=judgement.metric, gates=judgement.gates,
    )  # fmt: skip
    return Result(result, filled, current, bench.loaded.path)


def _prepared_for(step: Pass[Any], bench: Workbench) -> ir.Model:
    """The canonical form; simplified first where the pass wants weights and batch norms in one piece."""
    if step.name in EXACT:
        return bench.canonical
    first = Simplify()
    everything = bench.context.__class__(**{**vars(bench.context), "only": (), "exclude": ()})
    return first.apply(bench.canonical, first.plan(bench.canonical, everything), everything)


def _concluded(
    bench: Workbench, recipe: str, done: list[tuple[StepResult, ir.Model]], steps: list[StepReport], current: ir.Model
) -> Result:
    """The last word: original against result, measured longer; steps are undone from the end while the whole is not better."""
    reason = "no step was kept"
    while done:
        timing = measure(
            {"before": bench.loaded.model, "after": current},
            bench.feed,
            bench.context.session,
            bench.clock,
            min_seconds=FINAL_SECONDS,
            attempts=3,
        )
        judgement = bench.judge.judge(current)
        shrink = bench.loaded.bytes / max(
            1, len(serialize(current)) if weight_bytes(current) < 2**30 else weight_bytes(current)
        )
        kept, reason = decide(timing, shrink, bench.options.goal, exact=False, measurable=bench.target_is_host)
        if kept and judgement.passed:
            calibration = data_facts(bench.calibration)
            names = [r.report.name for r, _ in done]
            result = with_provenance(
                current, bench.loaded.sha256, recipe, names, calibration if "quantize" in names else None
            )
            plans = [r.plan for r, _ in done if r.plan is not None]
            if timing.verdict == "UNSTABLE":
                bench.warn(f"latency not proven: {timing.reason}")
            report = _report(
                "optimize", bench, Verdict.PASSED, _gain_sentence(bench, current, timing), steps=tuple(steps), result=_in_memory(result),
                timing=timing, fidelity=judgement.fidelity, metric=judgement.metric, gates=judgement.gates,
            )  # fmt: skip
            return Result(result, report, plans[-1] if plans else None, bench.loaded.path)
        last, current = done.pop()
        undone = last.report.model_copy(
            update={"status": StepStatus.UNDONE, "why": f"the whole result was not better: {reason}"}
        )
        steps = [undone if s.name == last.report.name else s for s in steps]
    return _handed_back(bench, "optimize", steps, f"the original is handed back: {_why_nothing(steps, reason)}")


def _handed_back(bench: Workbench, command: str, steps: list[StepReport], sentence: str) -> Result:
    facts = (bench.loaded.model, bench.loaded.name, bench.loaded.sha256, bench.loaded.bytes)
    verdict = Verdict.NOTHING_GAINED
    report = _report(command, bench, verdict, sentence, steps=tuple(steps), result=facts)
    return Result(bench.loaded.model, report, None, bench.loaded.path)


def _why_nothing(steps: Sequence[StepReport], reason: str) -> str:
    undone = [f"{s.name}: {s.why}" for s in steps if s.status is not StepStatus.KEPT]
    return "; ".join(undone) if undone else reason


def _report(
    command: str, bench: Workbench, verdict: Verdict, sentence: str, *, result: tuple[ir.Model, str, str, int], exit_code: int = 0,
    steps: tuple[StepReport, ...] = (), timing: Benchmark | None = None, fidelity: Any = (), metric: Any = None, gates: Any = (),
) -> Report:  # fmt: skip
    shapes = bench.context.shapes
    source = bench.loaded
    model, name, sha256, size = result
    return Report(
        command=command,
        version=__version__,
        verdict=verdict,
        sentence=sentence,
        exit_code=exit_code,
        target=bench.target.name,
        host=host_line(),
        seed=bench.options.seed,
        versions=versions(),
        source=model_facts(source.model, source.name, source.sha256, source.bytes, shapes, counted_as=bench.canonical),
        result=model_facts(
            model, name, sha256, size, shapes, counted_as=bench.canonical if model is source.model else None
        ),
        calibration=data_facts(bench.calibration),
        evaluation=data_facts(bench.evaluation),
        steps=steps,
        fidelity=fidelity,
        metric=metric,
        gates=gates,
        benchmark=timing,
        notes=tuple(_distinct(bench.notes)),
        duration_s=round(bench.clock.elapsed(), 3),
    )


def _in_memory(model: ir.Model) -> tuple[ir.Model, str, str, int]:
    import hashlib

    if weight_bytes(model) > 2**30:  # too large to serialise just for a digest; saving tells both
        return model, "<memory>", "", weight_bytes(model)
    content = serialize(model)
    return model, "<memory>", hashlib.sha256(content).hexdigest(), len(content)


def _gain_sentence(bench: Workbench, after: ir.Model, timing: Benchmark) -> str:
    size = len(serialize(after)) if weight_bytes(after) < 2**30 else weight_bytes(after)
    before = bench.loaded.bytes
    return f"{before / 1e6:.2f} → {size / 1e6:.2f} MB ({before / size:.2f} × smaller), {timing.speedup['after']:.2f} × as fast"


def _default_gates(gates: Gates, bench: Workbench) -> Gates:
    """Without gates of the user's own: at most 0.01 of the metric lost where there are labels, else a cosine of 0.99."""
    if gates.min_cosine is not None or gates.max_drop is not None:
        return gates
    return Gates(max_drop=DEFAULT_MAX_DROP) if bench.judge.metric is not None else Gates(min_cosine=DEFAULT_MIN_COSINE)


def _pass(config: SimplifyConfig | QuantizeConfig) -> Pass[Any]:
    return Simplify(config) if isinstance(config, SimplifyConfig) else Quantize(config)


def _nothing(plan: Plan) -> str:
    return plan.skips[0].sentence if len(plan.skips) == 1 else "no node of this model can be changed by this pass"


def _checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    from dataclasses import fields
    from difflib import get_close_matches

    known = {f.name for f in fields(Options)}
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, 1)
            raise UsageError(f"unknown option {name!r}", hint=f"did you mean {near[0]!r}?" if near else None)
    return dict(options)


def _first(*values: float | None) -> float | None:
    return next((v for v in values if v is not None), None)


def _distinct(notes: Sequence[Note]) -> list[Note]:
    return list(dict.fromkeys(notes))


__all__ = ["bench", "optimize", "plan_of", "quantize", "simplify", "verify"]
