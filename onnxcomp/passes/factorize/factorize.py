"""The pass: linear nodes in two thinner ones, the rest refitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import LimitError, OnnxcompError, UsageError
from onnxcomp.evaluate.equivalence import Equivalence, compare, watched
from onnxcomp.model.cost import cost
from onnxcomp.ops.linear import Array
from onnxcomp.passes.base import CALIBRATION_HINT, Context, Evidence, Proof, header, require_data
from onnxcomp.passes.factorize.choice import Choice, Chooser
from onnxcomp.passes.factorize.config import WITH_DATA, FactorizeConfig, Method
from onnxcomp.passes.factorize.costs import Menu, Option, PairTimes, cost_of
from onnxcomp.passes.factorize.forms import Form, spatial_matrix
from onnxcomp.passes.factorize.known import Known
from onnxcomp.passes.factorize.layers import check_plan, energies_of, layer_of
from onnxcomp.passes.factorize.plan import FactorizePlan
from onnxcomp.passes.factorize.relax import relaxed
from onnxcomp.passes.factorize.rewrite import Factors, merged, split
from onnxcomp.passes.factorize.sensitivity import measured_losses
from onnxcomp.passes.factorize.sites import Site, find_sites
from onnxcomp.passes.factorize.spectrum import Spectrum, plain
from onnxcomp.passes.refitted import refitted
from onnxcomp.runtime.call_shapes import doubled, shapes_of_call
from onnxcomp.runtime.host import detect_host, detect_target
from onnxcomp.runtime.node_latency import NodeTable


class Factorize:
    """Low rank: W·x becomes U·(P·x) where that is smaller and faster."""

    name = "factorize"
    needs_calibration = False
    plan_type = FactorizePlan

    def __init__(self, config: FactorizeConfig | None = None) -> None:
        self.config = config or FactorizeConfig()
        self._known: Known | None = None
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
        require_data(self.config.needs_data(), ctx)
        method = self.config.chosen(has_data)
        known = self._of(model, ctx)
        found = known.spectra(method, dict.fromkeys(known.sites, self.config.alpha), ctx)
        menus = known.menus(self.config, ctx)
        energies = {m.site.name: energies_of(m, found[m.site.name]) for m in menus}
        losses = self._losses(model, known, menus, energies, found, ctx)
        choice = self._choose(model, known, found, menus, losses, energies, ctx)
        macs, params = _shares(known, choice.options)
        layers = tuple(layer_of(m, choice, found[m.site.name], losses, energies, self.config) for m in menus)
        return FactorizePlan(
            **header(self.name, model, ctx, known.skips),
            layers=layers,
            method=method,
            refit=self.config.refitting(has_data),
            budget=choice.sentence,
            reached=choice.reached,
            macs=macs,
            params=params,
            measured=choice.measured,
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
        parted = split(model, known.sites, factors)
        result, self._refitted = refitted(model, parted, {}, plan.refit if factors else "none", ctx)
        return result

    def prove(self, before: ir.Model, after: ir.Model, plan: FactorizePlan, ctx: Context) -> Proof:
        """Before any refit, the pairs of nodes compute what single nodes with the products of their factors do."""
        known = self._of(before, ctx)
        found = _equivalence(before, known.sites, _factors(plan, known, ctx), ctx)
        if found.complaint is not None:
            return Proof(passed=False, sentences=(f"product equivalence: {found.complaint}",))
        # A plan that was relaxed or edited has other ranks than those that its prediction was made for.
        shares = _shares(known, {x.name: Option(x.form, x.rank) for x in plan.layers if x.rank is not None})
        return Proof(passed=True, sentences=tuple(_summary(plan, shares, found, self._refitted)))

    def relax(self, plan: FactorizePlan, evidence: Evidence[FactorizePlan]) -> FactorizePlan | None:
        """The most costly layers become whole again."""
        return relaxed(plan, evidence)

    def _of(self, model: ir.Model, ctx: Context) -> Known:
        if self._known is None or self._known.model is not model:
            sites, skips = find_sites(model, ctx.only, ctx.exclude)
            shapes = shapes_of_call(model, ctx.feed, ctx.session)
            self._known = Known(model, {site.name: site for site in sites}, skips, shapes)
        return self._known

    def _losses(
        self,
        model: ir.Model,
        known: Known,
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
        known: Known,
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


def _factors(plan: FactorizePlan, known: Known, ctx: Context) -> dict[str, Factors]:
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


def _rough(known: Known, found: Mapping[str, Spectrum], options: Mapping[str, Option]) -> ir.Model:
    """A model with the chosen ranks, not refitted: for the clock."""
    made = {n: _made(known.sites[n], found[n], o.form, o.rank) for n, o in options.items() if o.rank is not None}
    return split(known.model, known.sites, made)


def _made(site: Site, found: Spectrum, form: Form, rank: int) -> Factors:
    view = site.views[0]
    if form == "spatial":
        matrix = spatial_matrix(view)
        first, second, _ = plain(matrix).factors(matrix, rank)
        return Factors(form, first, second, np.zeros(view.shape[:2]))
    return Factors(form, *found.factors(view.matrix(), rank))


def _shares(known: Known, options: Mapping[str, Option]) -> tuple[float | None, float | None]:
    """Predicted shares of the model's MACs and parameters that remain; None where there are none to begin with."""
    saved_macs = saved_params = 0.0
    for name, option in options.items():
        site = known.sites[name]
        before, after = (cost_of(site, o, known.macs, known.shapes) for o in (Option(option.form, None), option))
        saved_params += before[0] - after[0]
        saved_macs += before[1] - after[1]
    macs, params = float(sum(known.macs.values())), float(cost(known.model).parameters)
    return (1 - saved_macs / macs if macs else None), (1 - saved_params / params if params else None)


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


def _summary(
    plan: FactorizePlan, shares: tuple[float | None, float | None], found: Equivalence, refitted: str
) -> Iterator[str]:
    cut = [layer for layer in plan.layers if layer.rank is not None]
    yield f"{len(cut)} of {len(plan.layers)} layers in two factors, by {DESCRIBED[plan.method]}"
    macs, params = shares
    if macs is not None and params is not None:
        yield f"predicted: {macs:.1%} of the MACs and {params:.1%} of the parameters remain"
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
