"""The rank of every site: by a threshold on its energy, or by sharing out a budget over all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import ModelError
from onnxcomp.evaluate.allocation import Fit, knapsack
from onnxcomp.ops.linear import Array
from onnxcomp.passes.base import Context
from onnxcomp.passes.factorize.costs import Menu, Option, PairTimes
from onnxcomp.passes.latency_rounds import Proposal, in_rounds, measured, parse_latency
from onnxcomp.passes.latency_rounds import two_latencies as _measured
from onnxcomp.report.reasons import Reason

FASTER = 0.95
"""Two nodes must take at most this share of the time of the one that they replace."""

MAX_ROUNDS = 6
"""Rounds in which choices that measure slower are struck off the menus."""

UNTIMED = (
    "it can't be timed by itself, so its two factors are not known to be faster; --allow-slower takes it all the same"
)

Left = dict[str, tuple[Reason, str]]
Build = Callable[[Mapping[str, Option]], ir.Model]


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Args:
        options: By name of the site.
        left: Sites that stay whole, with the reason.
        sentence: Budget and prediction in words; `reached`: whether it is met.
        measured: Latencies that it was made from: what → milliseconds.
    """

    options: dict[str, Option]
    left: Left
    sentence: str
    reached: bool
    measured: dict[str, float] = field(default_factory=dict)


class Chooser:
    """Options of all sites with their losses, and which of them are still on.

    Args:
        menus: Of the sites.
        losses: By name of the site, float64 [options]: predicted loss of the model's outputs.
        times: Milliseconds of options; None: nothing is timed (another machine, or the user does not ask for speed).
    """

    def __init__(self, menus: Sequence[Menu], losses: Mapping[str, Array], times: PairTimes | None) -> None:
        self._menus, self._times = menus, times
        self._losses = {name: loss.copy() for name, loss in losses.items()}
        self._timed: dict[str, float] = {}
        self._slow: set[str] = set()
        self._untimed: set[str] = set()

    def by_energy(self, energy: float, energies: Mapping[str, Array]) -> Choice:
        """For each site the cheapest option that keeps the share of its energy.

        Args:
            energies: By name of the site, float64 [options].
        """

        def pick() -> dict[str, int]:
            chosen = {}
            for menu in self._menus:
                name = menu.site.name
                enough = (energies[name] >= energy - 1e-12) & np.isfinite(self._losses[name])
                chosen[name] = int(np.argmin(np.where(enough, menu.params, np.inf)))
            return chosen

        chosen = self._fast(pick)
        left: Left = {}
        for menu in self._menus:
            name = menu.site.name
            if chosen[name] == 0 and name not in self._untimed:
                even = menu.even("channels")
                close = f"{energy:.4g} of its energy needs a rank too close to break-even, {even:.0f}"
                slow = f"at the ranks that keep {energy:.4g} of its energy its two factors measured no faster"
                left[name] = (Reason.SLOWER, slow) if name in self._slow else (Reason.BREAK_EVEN, close)
        factored = sum(index > 0 for index in chosen.values())
        told = f"{factored} of {len(chosen)} layers keep {energy:.4g} of their energy in two factors"
        return self._choice(chosen, left, told, reached=True)

    def by_cost(self, what: str, costs: Sequence[Array], whole: float, share: float) -> Choice:
        """The least loss for a budget of additive costs.

        Args:
            what: Is counted.
            costs: For each menu, float64 [options].
            whole: Of the model; `share` of it may remain.
        """
        rest = whole - float(sum(cost[0] for cost in costs))
        budget = share * whole - rest
        chosen = self._fast(lambda: self._least_loss(costs, budget))
        after = rest + float(sum(cost[chosen[m.site.name]] for m, cost in zip(self._menus, costs, strict=True)))
        reached = after <= share * whole * (1 + 1e-9)
        least = "" if reached else "; what can be factorised allows no more"
        told = f"{what}: {after / whole if whole else 1.0:.1%} remain, {after:,.4g} of {whole:,.4g}"
        return self._choice(chosen, {}, f"{told} (at most {share * whole:,.4g} asked for{least})", reached)

    def by_latency(self, asked: float | str, model: ir.Model, build: Build, ctx: Context) -> Choice:
        """The least loss for a latency, as measured on the whole model."""
        limit, absolute = parse_latency(asked)
        ctx.progress("timing single nodes", 0, None)
        costs = [self._all_times(menu) for menu in self._menus]
        before = float(sum(cost[0] for cost in costs))
        whole, _ = _measured(model, model, ctx)
        limit = limit if absolute else limit * whole
        nothing = {menu.site.name: 0 for menu in self._menus}
        if whole <= limit:
            told = f"the original meets it already: measured {whole:.3g} ms, {limit:.3g} ms asked for"
            return self._choice(nothing, {}, told, True, {"original": whole})

        def propose(fit: Fit) -> Proposal[dict[str, int]] | None:
            chosen = self._least_loss(costs, (limit - fit.rest) / fit.scale)
            if not any(chosen.values()):
                return None
            picked = [(cost, chosen[menu.site.name]) for menu, cost in zip(self._menus, costs, strict=True)]
            return Proposal(
                chosen,
                key=chosen,
                modelled=float(sum(cost[index] for cost, index in picked)),
                loss=float(sum(self._losses[name][index] for name, index in chosen.items())),
                build=lambda: build(self._options(chosen)),
            )

        rounds = in_rounds(model, before, whole, limit, propose, ctx, _measured)
        found = measured(rounds.tried, whole)
        if rounds.best is None or rounds.best[1] >= whole:
            reason = "nothing could be factorised" if rounds.best is None else "no choice that was tried is faster"
            told = f"{reason}: {whole:.3g} ms, {limit:.3g} ms asked for"
            return self._choice(nothing, {}, told, False, found)
        proposal, milliseconds = rounds.best
        told = f"measured: {milliseconds:.3g} ms of {whole:.3g} ms, {limit:.3g} ms asked for"
        return self._choice(proposal.choice, {}, told, milliseconds <= limit, found)

    def _least_loss(self, costs: Sequence[Array], budget: float) -> dict[str, int]:
        names = [menu.site.name for menu in self._menus]
        found = knapsack(list(costs), [self._losses[name] for name in names], budget)
        return dict(zip(names, found.choices, strict=True))

    def _fast(self, pick: Callable[[], dict[str, int]]) -> dict[str, int]:
        """What `pick` chooses, without options that measure slower than the whole."""
        for _ in range(MAX_ROUNDS):
            chosen = pick()
            if self._times is None or not self._struck(chosen):
                return chosen
        return {name: 0 if name in self._slow else index for name, index in chosen.items()}

    def _struck(self, chosen: Mapping[str, int]) -> bool:
        """Strikes off what was chosen and is not faster, with all options of its site that measure no faster either;
        whether there was such a thing."""
        found = False
        for menu in self._menus:
            name, index = menu.site.name, chosen[menu.site.name]
            if not index:
                continue
            whole, two = (self._time(menu, i) for i in (0, index))
            if whole is not None and two is not None and two <= FASTER * whole:
                continue
            every = self._all_times(menu)
            self._losses[name][1:][every[1:] > FASTER * every[0]] = np.inf
            self._losses[name][index] = np.inf
            self._slow.add(name)
            found = True
        return found

    def _time(self, menu: Menu, index: int) -> float | None:
        assert self._times is not None
        option = menu.options[index]
        try:
            found = self._times.of(menu.site, option)
        except ModelError:
            return None
        if found is not None:
            rank = "whole" if option.rank is None else f"{option.form} {option.rank}"
            self._timed[f"{menu.site.name}: {rank}"] = round(found, 6)
        return found

    def _all_times(self, menu: Menu) -> Array:
        """Of each option; a site that can't be timed costs nothing and offers nothing."""
        try:
            found = None if self._times is None else self._times.all(menu)
        except ModelError:
            found = None
        if found is None:
            self._untimed.add(menu.site.name)
            self._losses[menu.site.name][1:] = np.inf
            return np.zeros(len(menu.options))
        return found

    def _options(self, chosen: Mapping[str, int]) -> dict[str, Option]:
        return {menu.site.name: menu.options[chosen[menu.site.name]] for menu in self._menus}

    def _choice(
        self, chosen: dict[str, int], left: Left, told: str, reached: bool, more: Mapping[str, float] | None = None
    ) -> Choice:
        for menu in self._menus:
            name = menu.site.name
            if chosen[name] or name in left:
                continue
            if name in self._untimed:
                left[name] = Reason.SLOWER, UNTIMED
            elif name in self._slow and not np.isfinite(self._losses[name][1:]).any():
                left[name] = Reason.SLOWER, "its two factors measured no faster than the whole, at every rank of use"
            elif len(menu.options) == 1:
                left[name] = (
                    Reason.TOO_SMALL,
                    f"no rank worth trying lies below break-even, {menu.even('channels'):.0f}",
                )
            elif reached:
                left[name] = Reason.NOT_NEEDED, "the budget is met without factorising it"
            else:
                left[name] = Reason.SLOWER, "no rank of it was found to make the model as fast as asked"
        return Choice(self._options(chosen), left, told, reached, self._timed | dict(more or {}))
