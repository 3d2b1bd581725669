"""The pass: linear nodes in two thinner ones, the rest refitted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from onnxcomp import __version__
from onnxcomp.calibration.gram import Gram
from onnxcomp.calibration.second_moments import Wanted, gather
from onnxcomp.errors import LimitError, OnnxcompError, PlanError, UsageError
from onnxcomp.evaluate.equivalence import Equivalence, compare, watched
from onnxcomp.model.cost import cost, macs_by_node
from onnxcomp.model.fingerprint import structure_sha256
from onnxcomp.ops.linear import Array
from onnxcomp.passes.base import CALIBRATION_HINT, Context, Evidence, Plan, Proof
from onnxcomp.passes.factorize.choice import Choice, Chooser
from onnxcomp.passes.factorize.config import WITH_DATA, FactorizeConfig, Method
from onnxcomp.passes.factorize.costs import Menu, Option, PairTimes, menu
from onnxcomp.passes.factorize.forms import Form, allows, sides, spatial_matrix
from onnxcomp.passes.factorize.plan import FactorizePlan, LayerPlan
from onnxcomp.passes.factorize.relax import relaxed
from onnxcomp.passes.factorize.rewrite import Factors, merged, split
from onnxcomp.passes.factorize.sensitivity import measured_losses
from onnxcomp.passes.factorize.sites import Site, find_sites
from onnxcomp.passes.factorize.spectrum import Spectrum, plain, spectrum, wanted
from onnxcomp.refit.refit import refit
from onnxcomp.report.structures import Skip
from onnxcomp.runtime.call_shapes import doubled, shapes_of_call
from onnxcomp.runtime.host import detect_host, detect_target
from onnxcomp.runtime.node_latency import NodeTable
from onnxcomp.runtime.node_spec import Shape

MOMENT_BYTES = 1 << 30
"""Of second moments held at a time; more takes further passes over the feeds."""

FEWEST_ROWS = 2
"""Rows of calibration for each rank; with fewer the regularisation grows in proportion."""


class Factorize:
    """Low rank: W·x becomes U·(P·x) where that is smaller and faster."""

    name = "factorize"
    needs_calibration = False
    plan_type = FactorizePlan

    def __init__(self, config: FactorizeConfig | None = None) -> None:
        self.config = config or FactorizeConfig()
        self._known: _Known | None = None
        self._refitted = ""

    def with_macs(self, share: float) -> Factorize:
        """The same pass with another budget, that knows what this one found out."""
        nothing = {"energy": None, "params": None, "latency": None}
        other = Factorize(self.config.model_copy(update={"macs": share, **nothing}))
        other._known = self._known
        return other

    def plan(self, model: ir.Model, ctx: Context) -> FactorizePlan:
        """Finds the sites and their spectra, and spends the budget.

        Raises:
            UsageError: Something was asked for that needs calibration feeds.
        """
        has_data = ctx.calibration is not None
        if self.config.needs_data() and not has_data:
            needing = " and ".join(self.config.needs_data())
            raise UsageError(f"{needing} can't be had without calibration data", hint=CALIBRATION_HINT)
        method = self.config.chosen(has_data)
        known = self._of(model, ctx)
        found = known.spectra(method, dict.fromkeys(known.sites, self.config.alpha), ctx)
        menus = known.menus(self.config, ctx)
        energies = {m.site.name: _energies(m, found[m.site.name]) for m in menus}
        losses = self._losses(model, known, menus, energies, found, ctx)
        choice = self._choose(model, known, found, menus, losses, energies, ctx)
        header = Plan(
            pass_name=self.name, version=__version__, source_sha256=structure_sha256(model), target=ctx.target.name
        )
        macs, params = _shares(menus, choice, known)
        layers = tuple(_layer(m, choice, found[m.site.name], losses, energies, self.config) for m in menus)
        return FactorizePlan(
            **header.model_dump() | {"skips": tuple(known.skips)},
            layers=layers,
            method=method,
            refit=self.config.refitting(has_data),
            budget=choice.sentence,
            reached=choice.reached,
            macs=macs,
            params=params,
            measured=choice.measured,
            doubts=tuple(_doubts(layers, {n: s.rows for n, s in found.items()}, method)),
        )

    def apply(self, model: ir.Model, plan: FactorizePlan, ctx: Context) -> ir.Model:
        """Splits what the plan gives a rank, and refits the second factors on the calibration feeds.

        Raises:
            PlanError: The plan was made for another model.
            UsageError: Its directions need calibration feeds, and there are none.
        """
        known = self._of(model, ctx)
        check_plan(plan, known.sites)
        factors = _factors(plan, known, ctx)
        result = split(model, known.sites, factors)
        self._refitted = ""
        if plan.refit == "none" or not factors:
            return result
        if ctx.calibration is None:
            self._refitted = f"not refitted: the plan wants {plan.refit}, and there are no calibration feeds"
            return result
        outcome = refit(
            model,
            result,
            {},
            ctx.calibration,
            ctx.session,
            progress=lambda done, total: ctx.progress("refitting", done, total),
        )
        self._refitted = outcome.sentence
        return outcome.model

    def prove(self, before: ir.Model, after: ir.Model, plan: FactorizePlan, ctx: Context) -> Proof:
        """Before any refit, the pairs of nodes compute what single nodes with the products of their factors do."""
        known = self._of(before, ctx)
        found = _equivalence(before, known.sites, _factors(plan, known, ctx), ctx)
        if found.complaint is not None:
            return Proof(passed=False, sentences=(f"product equivalence: {found.complaint}",))
        return Proof(passed=True, sentences=tuple(_summary(plan, found, self._refitted)))

    def relax(self, plan: FactorizePlan, evidence: Evidence[FactorizePlan]) -> FactorizePlan | None:
        """The most costly layers become whole again."""
        return relaxed(plan, evidence)

    def _of(self, model: ir.Model, ctx: Context) -> _Known:
        if self._known is None or self._known.model is not model:
            sites, skips = find_sites(model, ctx.only, ctx.exclude)
            shapes = shapes_of_call(model, ctx.feed, ctx.session)
            self._known = _Known(model, {site.name: site for site in sites}, skips, shapes)
        return self._known

    def _losses(
        self,
        model: ir.Model,
        known: _Known,
        menus: Sequence[Menu],
        energies: Mapping[str, Array],
        found: Mapping[str, Spectrum],
        ctx: Context,
    ) -> dict[str, Array]:
        """Predicted loss of the outputs for each option; without data the share of the layer's own energy."""
        if ctx.calibration is None or not menus:
            return {name: 1.0 - kept for name, kept in energies.items()}
        curves = known.losses
        if curves is None:
            curves = measured_losses(
                model,
                [m.site for m in menus],
                found,
                ctx.calibration,
                ctx.session,
                sum(known.macs.values()),
                progress=lambda done, total: ctx.progress("measuring the sensitivity of layers", done, total),
            )
            known.losses = curves
        return {
            m.site.name: np.array([0.0 if o.rank is None else curves[m.site.name][o.rank] for o in m.options])
            for m in menus
        }

    def _choose(
        self,
        model: ir.Model,
        known: _Known,
        found: Mapping[str, Spectrum],
        menus: Sequence[Menu],
        losses: Mapping[str, Array],
        energies: Mapping[str, Array],
        ctx: Context,
    ) -> Choice:
        config = self.config
        here = detect_target(detect_host()) == ctx.target.name
        timed = config.latency is not None or (here and not config.allow_slower)
        opset = model.opset_imports.get("", 0)
        chooser = Chooser(menus, losses, PairTimes(NodeTable(ctx.session), known.shapes, opset) if timed else None)
        if config.params is not None:
            whole = float(cost(model).parameters)
            return chooser.by_cost("parameters", [m.params for m in menus], whole, config.params)
        if config.macs is not None:
            return chooser.by_cost("MACs", [m.macs for m in menus], float(sum(known.macs.values())), config.macs)
        if config.latency is not None:
            return chooser.by_latency(config.latency, model, lambda chosen: _rough(known, found, chosen), ctx)
        return chooser.by_energy(config.kept_energy() or 1.0, energies)


@dataclass
class _Known:
    """What was found out about a model, whatever the budget.

    Args:
        losses: Predicted loss of the outputs at each rank, by name of the site.
        macs: Of the nodes in a typical call.
    """

    model: ir.Model
    sites: dict[str, Site]
    skips: list[Skip]
    shapes: Mapping[str, Shape]
    losses: dict[str, Array] | None = None
    _found: dict[tuple[str, Method, float], Spectrum] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.macs = macs_by_node(self.model, self.shapes)

    def menus(self, config: FactorizeConfig, ctx: Context) -> list[Menu]:
        """Of all sites."""
        unit = ctx.target.channel_multiple if config.round_to == "auto" else config.round_to
        # What a spatial pair loses can't be told from the moments of outputs: it competes where there are none.
        forms: tuple[Form, ...] = ("channels", "spatial") if ctx.calibration is None else ("channels",)
        return [
            menu(site, [f for f in forms if allows(site.views[0], f)], unit, self.macs, self.shapes)
            for site in self.sites.values()
        ]

    def spectra(self, method: Method, alphas: Mapping[str, float], ctx: Context) -> dict[str, Spectrum]:
        """By name of the site, as far as `alphas` names it.

        Args:
            alphas: Regularisation of each site.
        """
        missing = {n: self.sites[n] for n, alpha in alphas.items() if (n, method, alpha) not in self._found}
        wants = {n: wanted(site, method) for n, site in missing.items()} if ctx.calibration is not None else {}
        needed = {n: want for n, want in wants.items() if want is not None}
        done = 0
        for part in _parts(missing, needed):
            grams: dict[str, Gram] = {}
            if ctx.calibration is not None and needed:
                grams = gather(
                    self.model,
                    {n: needed[n] for n in part},
                    ctx.calibration,
                    ctx.session,
                    seed=ctx.seed,
                    progress=lambda seen, total: ctx.progress("watching the layers' outputs", seen, total),
                )
            for name in part:
                ctx.progress("finding directions", done, len(missing))
                found = spectrum(self.sites[name], method, grams.get(name), alphas[name])
                self._found[name, method, alphas[name]] = found
                done += 1
        return {name: self._found[name, method, alpha] for name, alpha in alphas.items()}


def _parts(names: Iterable[str], wants: Mapping[str, Wanted]) -> Iterator[list[str]]:
    """Sites whose moments fit into memory together; one at least."""
    part: list[str] = []
    held = 0
    for name in names:
        size = wants[name].bytes if name in wants else 0
        if part and held + size > MOMENT_BYTES:
            yield part
            part, held = [], 0
        part.append(name)
        held += size
    if part:
        yield part


def _factors(plan: FactorizePlan, known: _Known, ctx: Context) -> dict[str, Factors]:
    cut = [layer for layer in plan.layers if layer.rank is not None]
    if not cut:
        return {}
    if plan.method in WITH_DATA and ctx.calibration is None:
        raise UsageError(f"a plan of method {plan.method} can't be applied without data", hint=CALIBRATION_HINT)
    found = known.spectra(plan.method, {layer.name: layer.alpha for layer in cut}, ctx)
    return {
        layer.name: _made(known.sites[layer.name], found[layer.name], layer.form, layer.rank)
        for layer in cut
        if layer.rank is not None
    }


def _rough(known: _Known, found: Mapping[str, Spectrum], options: Mapping[str, Option]) -> ir.Model:
    """A model with the chosen ranks, not refitted: for the clock."""
    made = {n: _made(known.sites[n], found[n], o.form, o.rank) for n, o in options.items() if o.rank is not None}
    return split(known.model, known.sites, made)


def _energies(menu: Menu, found: Spectrum) -> Array:
    """[options]: the share of the energy that each one keeps."""
    kept = {"channels": found.energies}
    if any(option.form == "spatial" for option in menu.options):
        kept["spatial"] = plain(spatial_matrix(menu.site.views[0])).energies
    return np.array([1.0 if o.rank is None else kept[o.form][o.rank] for o in menu.options])


def _made(site: Site, found: Spectrum, form: Form, rank: int) -> Factors:
    view = site.views[0]
    if form == "spatial":
        matrix = spatial_matrix(view)
        first, second, _ = plain(matrix).factors(matrix, rank)
        return Factors(form, first, second, np.zeros(view.shape[:2]))
    return Factors(form, *found.factors(view.matrix(), rank))


def _layer(
    menu: Menu,
    choice: Choice,
    found: Spectrum,
    losses: Mapping[str, Array],
    energies: Mapping[str, Array],
    config: FactorizeConfig,
) -> LayerPlan:
    name = menu.site.name
    option = choice.options[name]
    index = menu.options.index(option)
    groups, out, columns = menu.site.shape
    code, why = choice.left.get(name, (None, ""))
    return LayerPlan(
        name=name,
        op_type=menu.site.views[0].node.op_type,
        nodes=tuple(view.node.name or "" for view in menu.site.views),
        form=option.form,
        rank=option.rank,
        groups=groups,
        out=out,
        columns=columns,
        break_even=menu.even(option.form),
        alpha=_alpha(config.alpha, found.rows, option.rank),
        energy=float(energies[name][index]),
        loss=float(losses[name][index]),
        energies=tuple(round(float(e), 6) for e in found.energies[1:]),
        code=code,
        why=why,
    )


def _alpha(alpha: float, rows: int, rank: int | None) -> float:
    """More regularisation where there are fewer than two rows for each rank."""
    if rank is None or not rows:
        return alpha
    return alpha * max(1.0, FEWEST_ROWS * rank / rows)


def _doubts(layers: Sequence[LayerPlan], rows: Mapping[str, int], method: Method) -> Iterator[str]:
    if method not in WITH_DATA:
        return
    few = [layer for layer in layers if layer.rank is not None and rows[layer.name] < FEWEST_ROWS * layer.rank]
    if few:
        worst = min(few, key=lambda layer: rows[layer.name] / (layer.rank or 1))
        yield (
            f"FEW SAMPLES: {len(few)} layers have fewer than {FEWEST_ROWS} rows of calibration for each rank "
            f"({worst.name}: {rows[worst.name]} for rank {worst.rank}); their directions are regularised more"
        )


def _shares(menus: Sequence[Menu], choice: Choice, known: _Known) -> tuple[float | None, float | None]:
    """Predicted shares of the model's MACs and parameters that remain; None where there are none to begin with."""
    saved_macs = saved_params = 0.0
    for m in menus:
        index = m.options.index(choice.options[m.site.name])
        saved_macs += float(m.macs[0] - m.macs[index])
        saved_params += float(m.params[0] - m.params[index])
    macs, params = float(sum(known.macs.values())), float(cost(known.model).parameters)
    return (1 - saved_macs / macs if macs else None), (1 - saved_params / params if params else None)


def check_plan(plan: FactorizePlan, sites: Mapping[str, Site]) -> None:
    """Every layer of the plan is there in the model, with its size and nodes, and once in the plan.

    Raises:
        PlanError: It is not.
    """
    seen: set[str] = set()
    for layer in plan.layers:
        if layer.name in seen:
            raise PlanError(f"the plan's layer {layer.name!r} is there twice", hint="leave one of them out")
        seen.add(layer.name)
        if layer.rank is None:
            continue
        site = sites.get(layer.name)
        nodes = () if site is None else tuple(view.node.name for view in site.views)
        if site is None or site.shape != (layer.groups, layer.out, layer.columns) or nodes != layer.nodes:
            raise PlanError(
                f"the plan's layer {layer.name!r} of {layer.out} × {layer.columns} can't be factorised in this model",
                hint="make a new plan with --dry-run",
            )
        if not allows(site.views[0], layer.form) or layer.rank > min(sides(site.views[0], layer.form)):
            raise PlanError(f"the plan's layer {layer.name!r} can't be of form {layer.form} and rank {layer.rank}")


def _equivalence(
    model: ir.Model, sites: Mapping[str, Site], factors: Mapping[str, Factors], ctx: Context
) -> Equivalence:
    config = replace(ctx.session, optimization="basic")
    feeds = [ctx.feed, doubled(model, ctx.feed, every=False)]
    try:
        two, one = split(model, sites, factors), merged(model, sites, factors)
        return compare(model, two, one, watched(model, ()), feeds, config, called="the product of its factors")
    except LimitError:
        raise
    except OnnxcompError as error:
        return Equivalence(f"the factorised model does not run: {error.message}")


def _summary(plan: FactorizePlan, found: Equivalence, refitted: str) -> Iterator[str]:
    cut = [layer for layer in plan.layers if layer.rank is not None]
    yield f"{len(cut)} of {len(plan.layers)} layers in two factors, by {DESCRIBED[plan.method]}"
    if plan.macs is not None and plan.params is not None:
        yield f"predicted: {plan.macs:.1%} of the MACs and {plan.params:.1%} of the parameters remain"
    yield f"product equivalence holds: largest difference {found.difference:.2g} of what is allowed"
    if not found.changed:
        yield "the products of the factors change no output: nothing was lost on these feeds"
    if refitted:
        yield refitted


DESCRIBED: dict[Method, str] = {
    "covariance": "the covariance of their outputs",
    "asvd": "the SVD of weights scaled by their inputs",
    "svd": "the SVD of their weights",
}
