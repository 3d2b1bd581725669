"""From what was chosen to the layers of a plan, and from a plan's layers back to the model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxcomp.errors import PlanError
from onnxcomp.ops.linear import Array
from onnxcomp.passes.factorize.choice import Choice
from onnxcomp.passes.factorize.config import FactorizeConfig
from onnxcomp.passes.factorize.costs import Menu
from onnxcomp.passes.factorize.forms import Form, allows, sides, spatial_matrix
from onnxcomp.passes.factorize.plan import FEWEST_ROWS, FactorizePlan, LayerPlan
from onnxcomp.passes.factorize.sites import Site
from onnxcomp.passes.factorize.spectrum import Spectrum, plain


def energies_of(menu: Menu, found: Spectrum) -> Array:
    """[options]: the share of the energy that each one keeps."""
    kept = {form: _kept(menu.site, found, form) for form in {option.form for option in menu.options}}
    return np.array([1.0 if o.rank is None else kept[o.form][o.rank] for o in menu.options])


def _kept(site: Site, found: Spectrum, form: Form) -> Array:
    """float64 [k + 1]: the share that rank 0, 1, … keeps of what a form splits."""
    return found.energies if form == "channels" else plain(spatial_matrix(site.views[0])).energies


def layer_of(
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
        rows=found.rows,
        alpha=_alpha(config.alpha, found.rows, option.rank),
        energy=float(energies[name][index]),
        loss=float(losses[name][index]),
        energies=tuple(round(float(e), 6) for e in _kept(menu.site, found, option.form)[1:]),
        code=code,
        why=why,
    )


def _alpha(alpha: float, rows: int, rank: int | None) -> float:
    """More regularisation where there are fewer than two rows for each rank."""
    if rank is None or not rows:
        return alpha
    return alpha * max(1.0, FEWEST_ROWS * rank / rows)


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
