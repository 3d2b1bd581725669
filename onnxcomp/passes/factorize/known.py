"""What is found out about a model once, whatever the budget: its sites, and the spectra of their outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxcomp.calibration.gram import Gram
from onnxcomp.calibration.second_moments import Wanted, gather
from onnxcomp.model.cost import macs_by_node
from onnxcomp.ops.linear import Array
from onnxcomp.passes.base import Context
from onnxcomp.passes.factorize.config import FactorizeConfig, Method
from onnxcomp.passes.factorize.costs import Menu, menu
from onnxcomp.passes.factorize.forms import Form, allows
from onnxcomp.passes.factorize.sites import Site
from onnxcomp.passes.factorize.spectrum import Spectrum, spectrum, wanted
from onnxcomp.report.structures import Skip
from onnxcomp.runtime.node_spec import Shape

MOMENT_BYTES = 1 << 30
"""Of second moments held at a time; more takes further passes over the feeds."""


@dataclass
class Known:
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
