"""Refit: front to back, each layer is fitted in closed form to what it gave in the original model.

Its inputs are those of the changed model, in which all layers before it are refitted already, so that a layer also
makes up for what the ones before it lost (He, Zhang, Sun 2017: channel pruning with reconstruction). No labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.gram import Gram
from onnxcomp.calibration.lockstep import Lockstep, Stop, lockstep
from onnxcomp.calibration.readers import Reader
from onnxcomp.errors import ModelError
from onnxcomp.evaluate.sensitivity import relative_error
from onnxcomp.model.normalize import clone
from onnxcomp.ops.attributes import is_constant
from onnxcomp.ops.linear import positions
from onnxcomp.refit.fit import Fit, fit, fit_flat
from onnxcomp.refit.flat import Rows
from onnxcomp.refit.reach import reach
from onnxcomp.refit.sites import BatchNorm, Keep, Site, restricted, site_of
from onnxcomp.runtime.session import SessionConfig, open_session

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class RefitOptions:
    """How the refit is done.

    Args:
        strengths: Ridge to try, as shares of the mean diagonal of the inputs' second moments.
        rows_per_column: Rows to fit on, for each unknown of an output; and never fewer than `rows`.
        largest: Most unknowns of one output to solve for; above it a scale and a bias.
        limit: Bytes of activations of both models that may be held at once; decides how many feeds are used.
        held_every: One batch of so many is held out to judge by.
        seed: Of the choice of rows.
    """

    strengths: tuple[float, ...] = (0.3, 1e-1, 1e-2, 1e-3, 1e-4)
    rows_per_column: int = 40
    rows: int = 10_000
    largest: int = 4608
    limit: int = 1 << 30
    held_every: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Refitted:
    """One node after the refit.

    Args:
        node: Its name; `op_type` its operator.
        level: "least squares", "moments", "scale and bias", "bias" or "as it was".
        strength: Ridge of the least squares.
        before: Held-out squared error relative to the variance of the target, the original's output or residual sum; in
            front of a Relu, of what it lets through. `after` likewise.
    """

    node: str
    op_type: str
    level: str
    strength: float
    before: float
    after: float


@dataclass(frozen=True)
class Refit:
    """The refitted model, or the plain slice when refitting brought nothing.

    Args:
        model: The result.
        layers: What was done, in order; empty for the plain slice.
        before: Error of the outputs on held-out feeds, relative to the variance of the original's; `after` likewise.
        feeds: Feeds in use; `limited` when the byte limit left some out.
        sentence: For the report.
    """

    model: ir.Model
    layers: tuple[Refitted, ...]
    before: float
    after: float
    feeds: int
    limited: bool
    sentence: str


def refit(
    original: ir.Model,
    changed: ir.Model,
    keep: Keep,
    reader: Reader,
    config: SessionConfig,
    options: RefitOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Refit:
    """Fits the weights of `changed` to the activations of `original`; neither is changed.

    Args:
        original: Canonical.
        changed: The same node and value names, where a node is in both.
        keep: For each value of the original that lost something, the kept indices along each axis.
        reader: Feeds; no labels.
        config: Sessions to run in.
        progress: Called after each node.
    """
    try:
        return _refit(original, changed, keep, reader, config, options or RefitOptions(), progress)
    except ModelError as error:  # a sequence between two pieces, for one
        sentence = f"No refit, the model can't be run in pieces: {error.message}."
        return Refit(clone(changed), (), 0.0, 0.0, 0, False, sentence)


def _refit(
    original: ir.Model,
    changed: ir.Model,
    keep: Keep,
    reader: Reader,
    config: SessionConfig,
    options: RefitOptions,
    progress: Progress | None,
) -> Refit:
    model = clone(changed)
    here = {node.name: node for node in original.graph}
    found = [site_of(node, options.largest) for node in model.graph if node.name in here]
    sites = [site for site in found if site is not None and not is_constant(site.input)]
    stops = [Stop((s.output.name or "",), (s.input.name or "",)) for s in sites]
    both = lockstep(original, model, reader, config, stops, limit=options.limit)
    ahead = {site.node: site for site in sites}
    layers: list[Refitted] = []
    rng = np.random.default_rng(options.seed)
    solved: set[ir.Value] = set()
    for i, site in enumerate(sites):
        del ahead[site.node]
        if isinstance(site, BatchNorm) and site.input in solved:
            chosen = None  # its input is the original's again
        else:
            chosen = _fitted(site, both, keep, here, frozenset(ahead), options, rng)
        if chosen is not None:
            if chosen.better:
                site.write(chosen.weights, chosen.bias)
            if chosen.level == "least squares":
                solved.add(site.output)
            level = chosen.level if chosen.better else "as it was"
            name, op_type = site.node.name or "", site.node.op_type
            layers.append(Refitted(name, op_type, level, chosen.strength, chosen.before, chosen.after))
        if progress:
            progress(i + 1, len(sites))
    return _judged(model, changed, both, tuple(layers), config, options)


def _fitted(
    site: Site,
    both: Lockstep,
    keep: Keep,
    here: dict[str | None, ir.Node],
    ahead: frozenset[ir.Node],
    options: RefitOptions,
    rng: np.random.Generator,
) -> Fit | None:
    """The best weights for one site, or None where the two models can't be compared."""
    name = site.output.name or ""
    way = reach(site, here, both.other, ahead)
    y, *others_y = both.original.fetch(name, *([way.original] if way.original else []))
    x, *others_x = both.other.fetch(site.input.name or "", *([way.other] if way.other else []))
    weights, bias = site.weights(), site.bias()
    groups, out, columns = weights.shape
    wanted = max(options.rows, options.rows_per_column * columns)
    flat = way.ends is not None and site.can_bias and wanted * 4 * groups * (columns + 4 * out) <= options.limit // 2
    seen, held = (Gram(groups, columns, out) for _ in range(2))
    rows_seen, rows_held = Rows(), Rows()
    for i, own in enumerate(x):
        count, target = site.count(own.shape), restricted(y[i], keep.get(name))
        if target.size != count * groups * out:
            return None
        chosen = positions(count, -(-wanted // len(x)), rng)
        rows, targets = site.rows(own, chosen), site.targets(target, chosen)
        other = np.zeros((1, groups, out), targets.dtype)
        if way.original is not None:
            theirs = restricted(others_y[0][i], keep.get(way.original))
            if theirs.shape != target.shape or others_x[0][i].shape != target.shape:
                return None
            other = site.targets(others_x[0][i], chosen)
            targets = targets + (site.targets(theirs, chosen) - other) / way.scale.reshape(groups, out)
        judges = _is_held(i, len(x), options.held_every)
        (held if judges else seen).add(rows, targets)
        if flat:
            bounds = (np.broadcast_to(end, targets.shape) for end in way.bounds(other))
            (rows_held if judges else rows_seen).add(rows, targets, *bounds)
    if not seen.count:
        return None
    if not held.count:
        held, rows_held = seen, rows_seen
    strengths, match = options.strengths, isinstance(site, BatchNorm)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # feeds of 1e18: such fits lose the comparison
        found = fit(seen, held, weights, bias, can_bias=site.can_bias, strengths=strengths, match=match)
        return fit_flat(found, seen, rows_seen, rows_held, weights, bias) if flat else found


def _is_held(batch: int, batches: int, every: int) -> bool:
    """Every `every`-th batch judges; of fewer the last one, and of a single one none."""
    return batch % every == every - 1 or (1 < batches < every and batch == batches - 1)


def _judged(
    model: ir.Model,
    plain: ir.Model,
    both: Lockstep,
    layers: tuple[Refitted, ...],
    config: SessionConfig,
    options: RefitOptions,
) -> Refit:
    """The refitted model, if its outputs are closer to the original's on the held-out feeds than the plain slice's."""
    names = [v.name or "" for v in model.graph.outputs]
    count = len(both.batches)
    held = [i for i in range(count) if _is_held(i, count, options.held_every)] or list(range(count))
    wanted, ours = both.original.fetch(*names), both.other.fetch(*names)
    with open_session(plain, config) as session:
        slices = [session.run(both.batches[i], names) for i in held]
    before = relative_error([[w[i] for w in wanted] for i in held], slices)
    after = relative_error([[w[i] for w in wanted] for i in held], [[o[i] for o in ours] for i in held])
    used = f"{both.rows} feeds" + (" (as many as the memory limit allows)" if both.limited else "")
    where = "held-out feeds" if len(held) < count else "the same feeds, too few to hold some out"
    figures = f"error of the outputs {before:.3g} → {after:.3g} of their variance on {where}; {used}"
    if not after < before:
        return Refit(clone(plain), (), before, after, both.rows, both.limited, f"the refit brought nothing: {figures}")
    better = sum(layer.level != "as it was" for layer in layers)
    sentence = f"{better} layer{'s' if better != 1 else ''} refitted: {figures}"
    return Refit(model, layers, before, after, both.rows, both.limited, sentence)
