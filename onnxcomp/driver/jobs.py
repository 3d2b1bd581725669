"""The jobs behind the verbs. Each prepares, runs and fills a report; none prints."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxcomp.driver.conclusion import FINAL_SECONDS, conclude, unproved
from onnxcomp.driver.latency import measure
from onnxcomp.driver.modes import MODES, best_of, candidates, check_options, pass_of_mode
from onnxcomp.driver.options import options_of
from onnxcomp.driver.registry import checked
from onnxcomp.driver.reporting import Measured, Subject, fill
from onnxcomp.driver.result import Result
from onnxcomp.driver.running import asked_steps, run_recipe
from onnxcomp.driver.single import PlanSource, run_single
from onnxcomp.driver.steps import batch_cosine
from onnxcomp.driver.trial import NotRunnable
from onnxcomp.driver.workbench import DEFAULT_MAX_DROP, Workbench, prepare
from onnxcomp.errors import GateError, ModelError, UsageError
from onnxcomp.evaluate.gates import Gates
from onnxcomp.evaluate.proof import check_batches, check_structure
from onnxcomp.model.load import ModelSource, load
from onnxcomp.passes.factorize.config import FactorizeConfig
from onnxcomp.passes.factorize.factorize import Factorize
from onnxcomp.passes.prune.config import PruneConfig
from onnxcomp.passes.prune.prune import Prune
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.quantize.ranges import Method
from onnxcomp.passes.simplify.simplify import Simplify
from onnxcomp.recipe import load_recipe
from onnxcomp.report.structures import Benchmark, Report, Verdict
from onnxcomp.runtime.library import version as ort_version

DEFAULT_MIN_COSINE = 0.99


def optimize(
    model: ModelSource, calibration: object | None = None, eval: object | None = None, **options: Any
) -> Result:
    """The whole job: a recipe step by step, each behind its gates; ends with a model that is no worse than the input.

    Args:
        model: Path, bytes, `onnx.ModelProto` or `onnx_ir.Model`.
        calibration: Feeds to learn from: any re-iterable of `dict[str, ndarray]`, ORT's `CalibrationDataReader`, a
            torch DataLoader, or a SPEC as on the command line. Without: the model is only simplified.
        eval: Feeds to judge by; default: the last fifth of the calibration feeds.
        **options: The fields of `onnxcomp.driver.options.Options`.

    Returns:
        The result with its report; the verdict says whether anything was gained.

    Raises:
        onnxcomp.errors.OnnxcompError: Its class carries the exit code of the command line.
    """
    chosen = options_of(calibration, eval, options)
    recipe = load_recipe(chosen.recipe)
    gates = Gates(
        min_cosine=chosen.min_cosine if chosen.min_cosine is not None else recipe.gates.min_cosine,
        max_drop=chosen.max_drop if chosen.max_drop is not None else recipe.gates.max_drop,
    )
    try:
        bench = prepare(model, chosen, gates)
    except NotRunnable as error:
        return unproved(load(model, ort_version=ort_version()), chosen, error)
    bench.judge.gates = _default_gates(gates, bench)
    standing = run_recipe(asked_steps(recipe, chosen), bench)
    return conclude(bench, recipe.canonical(), standing.done, standing.reports)


def simplify(
    model: ModelSource,
    calibration: object | None = None,
    eval: object | None = None,
    *,
    plan: PlanSource = None,
    dry_run: bool = False,
    **options: Any,
) -> Result:
    """Exact rewrites: constants, shape arithmetic, batch norms and pads folded; what does nothing removed.

    Args and raises: as `optimize`; `plan` replays one, `dry_run` only makes one.
    """
    return run_single(Simplify(), model, options_of(calibration, eval, options), plan, dry_run=dry_run)


def quantize(
    model: ModelSource,
    calibration: object | None = None,
    eval: object | None = None,
    *,
    mode: str = "static",
    ranges: Method | None = None,
    smooth: str | float | None = None,
    correct: str | None = None,
    sensitivity: str | os.PathLike[str] | None = None,
    bits: int | None = None,
    block: int | None = None,
    method: str | None = None,
    plan: PlanSource = None,
    dry_run: bool = False,
    **options: Any,
) -> Result:
    """INT8 or other short numbers, with the options that you gave; the model is simplified first.

    Args:
        mode: static: INT8 with ranges from calibration feeds. dynamic: INT8 products and LSTMs whose activations are
            quantised at run time. weight-only: weights in blocks of 4 or 8 bits. fp16, bf16: 16-bit floats. auto: those
            of them that fit the model and the target, and of what passes the gates the best measured one.
        ranges: (static) How activation ranges are chosen; mse by default.
        smooth: (static) SmoothQuant for products with matrices: auto (chosen by the error of the outputs), none, or α,
            0 to 1.
        correct: (static) auto: ranges by parts of the model, equalised channels and corrected biases, each kept where
            the error of the outputs falls; none (the default) for the fewest seconds.
        sensitivity: (static) File of what each unit loses in INT8 and gains in time; made, or completed, by measuring,
            and read if it is there: the precision that it sets for a unit holds.
        bits, block, method: (weight-only) Of a weight, 4 or 8; weights that share a scale; auto, rtn, mse or gptq.
        plan: Replay this plan (or the plan in this file); needs no calibration data.
        dry_run: Plan only; `Result.plan` holds it.

    Other args and raises: as `optimize`.
    """
    chosen = options_of(calibration, eval, options)
    values = {"ranges": ranges, "smooth": smooth, "correct": correct, "bits": bits, "block": block, "method": method}
    values["sensitivity"] = None if sensitivity is None else os.fspath(sensitivity)
    given = {name: value for name, value in values.items() if value is not None}
    check_options(mode, given)
    if mode != "auto":
        return run_single(pass_of_mode(mode, given), model, chosen, plan, dry_run=dry_run)
    if plan is not None or dry_run:
        raise UsageError("--mode auto measures results, so there is no plan of it", hint="name the mode of the plan")
    gates = Gates(chosen.min_cosine, chosen.max_drop)
    bench = prepare(model, chosen, gates)
    bench.judge.gates = _default_gates(gates, bench)
    static = checked(QuantizeConfig, MODES["static"].values(given))
    best, results = best_of(candidates(static, bench, given), bench.simplified, bench)
    standing = [] if best is None else [results[best]]
    return conclude(bench, f"auto {sorted(given.items())}", standing, [r.report for r in results], command="quantize")


def prune(
    model: ModelSource,
    calibration: object | None = None,
    eval: object | None = None,
    *,
    ratio: float | None = None,
    macs: float | None = None,
    params: float | None = None,
    latency: float | str | None = None,
    importance: str = "auto",
    scope: str = "global",
    refit: str = "auto",
    round_to: int | str = "auto",
    max_ratio: float | None = None,
    ratios: Mapping[str, float] | None = None,
    plan: PlanSource = None,
    dry_run: bool = False,
    **options: Any,
) -> Result:
    """Removes channels with everything that depends on them, and refits the weights that stay.

    Args:
        ratio: Share of the channels to remove.
        macs, params: Share of the multiply-accumulates or parameters that may remain.
        latency: Share of the latency that may remain, or milliseconds as "8ms"; a result that is not faster is refused.
        importance: auto, l1, l2, bn, fpgm, activation, wanda or obs.
        scope: global, uniform or isomorphic.
        refit: auto, least-squares or none.
        round_to: Kept channels are multiples of it; auto: what the target's kernels want.
        max_ratio: Largest share of one cell's channels that may go.
        ratios: Share to remove by glob of node names.
        plan: Replay this plan (or the plan in this file); the numbers above then mean nothing.
        dry_run: Plan only; `Result.plan` holds it.

    Other args and raises: as `optimize`.
    """
    values = {
        "ratio": ratio,
        "macs": macs,
        "params": params,
        "latency": latency,
        "importance": importance,
        "scope": scope,
        "refit": refit,
        "round_to": round_to,
        "max_ratio": max_ratio,
        "ratios": dict(ratios or {}),
    }
    config = checked(PruneConfig, values)
    chosen = options_of(calibration, eval, options)
    faster = latency is not None and plan is None
    return run_single(Prune(config), model, chosen, plan, dry_run=dry_run, must_be_faster=faster)


def factorize(
    model: ModelSource,
    calibration: object | None = None,
    eval: object | None = None,
    *,
    energy: float | None = None,
    params: float | None = None,
    macs: float | None = None,
    latency: float | str | None = None,
    method: str = "auto",
    alpha: float = 0.1,
    refit: str = "auto",
    round_to: int | str = "auto",
    allow_slower: bool = False,
    plan: PlanSource = None,
    dry_run: bool = False,
    **options: Any,
) -> Result:
    """Low rank: products with a large weight become two with small ones, where that is smaller and faster.

    Args:
        energy: Share of the variance of each factorised layer's output that is kept (0.98 if no budget is given).
        params, macs: Share of the parameters or multiply-accumulates of the model that may remain.
        latency: Share of the latency that may remain, or milliseconds as "8ms"; a result that is not faster is refused.
        method: auto, covariance, asvd or svd.
        alpha: Regularisation of the covariance, as a share of its trace.
        refit: auto, least-squares or none.
        round_to: Ranks are multiples of it; auto: what the target's kernels want.
        allow_slower: Factorise also layers whose two parts measure slower than the whole.
        plan: Replay this plan (or the plan in this file); the numbers above then mean nothing.
        dry_run: Plan only; `Result.plan` holds it.

    Other args and raises: as `optimize`.
    """
    values = {
        "energy": energy,
        "params": params,
        "macs": macs,
        "latency": latency,
        "method": method,
        "alpha": alpha,
        "refit": refit,
        "round_to": round_to,
        "allow_slower": allow_slower,
    }
    step = Factorize(checked(FactorizeConfig, values))
    faster = latency is not None and plan is None
    chosen = options_of(calibration, eval, options)
    return run_single(step, model, chosen, plan, dry_run=dry_run, must_be_faster=faster)


def verify(model: ModelSource, against: ModelSource, eval: object | None = None, **options: Any) -> Report:
    """The gates alone: is `model` as close to `against` as asked? The report's exit code is 1 if not.

    Raises:
        ModelError: The two don't have the same inputs and outputs.
    """
    chosen = options_of(None, eval, options)
    gates = Gates(chosen.min_cosine, chosen.max_drop)
    bench = prepare(against, chosen, gates)
    bench.judge.gates = _default_gates(gates, bench)
    other = bench.second(model)
    complaint = check_structure(bench.loaded.model, other.model)
    if complaint is not None:
        raise ModelError(f"{other.name} can't be compared with {bench.loaded.name}: {complaint}")
    judgement = bench.judge.judge(other.model)
    wanted = batch_cosine(judgement.error)
    batches = check_batches(bench.loaded.model, other.model, bench.feed, bench.context.session, wanted)
    failures = [g.sentence() for g in judgement.gates if not g.passed]
    failures += [batches] if batches is not None else []
    return fill(
        "verify",
        bench,
        Verdict.FAILED if failures else Verdict.PASSED,
        "; ".join(failures)
        or "all gates hold: " + ", ".join(f"{g.name} {g.value:.5g} ({g.wanted})" for g in judgement.gates),
        Subject.of(other),
        measured=Measured(judgement),
        exit_code=GateError.exit_code if failures else 0,
    )


def bench(
    models: Sequence[ModelSource],
    calibration: object | None = None,
    *,
    min_seconds: float = FINAL_SECONDS,
    **options: Any,
) -> Benchmark:
    """Honest latency of models with the same inputs, interleaved; speed-ups are over the first.

    Args:
        models: One or more.
        calibration: Feeds, of which the first is timed; default: random.
        min_seconds: Of the first measurement; an unstable one is repeated, for longer.

    Raises:
        UsageError: Models with other inputs or outputs.
    """
    prepared = prepare(models[0], options_of(None, calibration, options), Gates())
    named: dict[str, ir.Model | bytes | Path] = {prepared.loaded.name: prepared.loaded.model}
    for source in models[1:]:
        other = prepared.second(source)
        complaint = check_structure(prepared.loaded.model, other.model)
        if complaint is not None:
            raise UsageError(f"{other.name} can't be timed on the feeds of {prepared.loaded.name}: {complaint}")
        name = other.name
        while name in named:
            name += "'"
        named[name] = other.model
    return measure(
        named,
        prepared.feed,
        prepared.context.session,
        prepared.clock,
        min_seconds=min_seconds,
        attempts=3,
        keep_samples=True,
    )


def _default_gates(gates: Gates, bench: Workbench) -> Gates:
    """Without gates of the user's own: at most 0.01 of the metric lost where there are labels, else cosine 0.99."""
    if gates.min_cosine is not None or gates.max_drop is not None:
        return gates
    labelled = bench.judge.metric is not None
    return Gates(max_drop=DEFAULT_MAX_DROP) if labelled else Gates(min_cosine=DEFAULT_MIN_COSINE)
