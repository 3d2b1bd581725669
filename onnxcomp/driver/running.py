"""The steps of a recipe, one after the other, each on what was kept so far."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from onnxcomp.driver.largest import largest_cut
from onnxcomp.driver.modes import best_of, candidates
from onnxcomp.driver.options import Options
from onnxcomp.driver.registry import Config, checked, pass_of
from onnxcomp.driver.rival import Progression, against_whole_layers
from onnxcomp.driver.steps import CHANNELS, EXACT, StepResult, run_step
from onnxcomp.driver.workbench import Workbench
from onnxcomp.errors import UsageError
from onnxcomp.passes.base import Pass
from onnxcomp.passes.factorize.config import FactorizeConfig
from onnxcomp.passes.factorize.factorize import Factorize
from onnxcomp.passes.prune.config import PruneConfig
from onnxcomp.passes.prune.prune import Prune
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.recipe import Recipe, Step
from onnxcomp.report.structures import StepStatus


def run_recipe(steps: Sequence[Step], bench: Workbench) -> Progression:
    """Runs the steps, and those behind a factorisation without it too: the better of the two stands."""
    # A first step that judges channels wants batch norms as they were.
    start = bench.folded if steps and pass_of(steps[0]).name in CHANNELS else bench.canonical
    found = _run(steps, start, bench)
    factors = next((i for i, config in enumerate(steps) if isinstance(config, FactorizeConfig)), len(steps))
    behind = steps[factors + 1 :]
    return against_whole_layers(bench, start, found, (lambda model: _run(behind, model, bench)) if behind else None)


def _run(steps: Sequence[Step], start: ir.Model, bench: Workbench) -> Progression:
    found = Progression()
    for config in steps:
        model = found.model(start)
        best: int | None = 0
        if isinstance(config, QuantizeConfig) and config.mode == "auto":
            # Noise can't judge what loses something: without any data only exact steps are taken.
            ways = [pass_of(config)] if bench.without_data else candidates(config, bench)
            best, results = best_of(ways, model, bench)
        else:
            results = [_step(pass_of(config), model, bench)]
        found.reports += [result.report for result in results]
        if best is not None and results[best].report.status is StepStatus.KEPT:
            found.done.append(results[best])
    return found


def _step(step: Pass[Any], model: ir.Model, bench: Workbench) -> StepResult:
    if isinstance(step, Prune | Factorize) and getattr(bench.options, step.name) == "auto":
        return largest_cut(step, model, bench)
    return run_step(step, model, bench, exact=step.name in EXACT)


def asked_steps(recipe: Recipe, options: Options) -> tuple[Step, ...]:
    """The recipe's steps, with those that were asked for beside it: pruning first, while batch norms are still there to
    judge by; factorisation of what is left before it is quantised.

    Raises:
        UsageError: The recipe has such a step already, or none that the option is for, or the value is neither a share
            nor "auto".
    """
    steps = list(recipe.step)
    if options.sensitivity is not None:
        if not any(isinstance(step, QuantizeConfig) for step in steps):
            raise UsageError("--sensitivity, and the recipe has no step of static INT8", hint="leave it out")
        path = {"sensitivity": os.fspath(options.sensitivity)}
        steps = [s.model_copy(update=path) if isinstance(s, QuantizeConfig) else s for s in steps]
    if options.factorize is not None:
        config = _asked(FactorizeConfig, "factorize", options.factorize, recipe)
        steps.insert(next((i for i, s in enumerate(steps) if isinstance(s, QuantizeConfig)), len(steps)), config)
    if options.prune is not None:
        steps.insert(0, _asked(PruneConfig, "prune", options.prune, recipe))
    return tuple(steps)


def _asked(kind: type[Config], name: str, wanted: float | str, recipe: Recipe) -> Config:
    """The config of a pass that `--name K` or `--name auto` asks for."""
    if any(isinstance(step, kind) for step in recipe.step):
        raise UsageError(f"--{name}, and the recipe has such a step too", hint="leave one of them out")
    try:
        share = 0.5 if wanted == "auto" else float(wanted)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UsageError(f"--{name} {wanted}: a share of the MACs between 0 and 1 that may remain, or auto")
    return checked(kind, {"macs": share})
