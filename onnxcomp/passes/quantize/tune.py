"""Ranges chosen by what the outputs lose: the method for the whole model, then other methods for parts of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onnxcomp.passes.quantize.plan import QParams, QuantPlan

PARTS = 4
"""Parts of neighbouring tensors, each with its method: finer ones won no more on feeds that nothing was chosen on."""

TRIALS = 1 + 3 + 4 * PARTS
"""Plans that are looked at, about: the given one, three other methods, and every method in every part."""

WORTH = 0.9
"""A change is kept if it leaves at most this share of the error: less is within what chance gives on a few feeds (on
NudeNet, 2 % less there came with 3 points fewer boxes found again on others)."""


def tuned(
    plan: QuantPlan, method: str, error_of: Callable[[QuantPlan], float], progress: Callable[[int, int | None], None]
) -> tuple[QuantPlan, float]:
    """The plan with the ranges whose outputs err least, and that error. Looks at no more than `TRIALS` plans.

    Args:
        plan: Its `alternatives` are the other methods' parameters; the result has none left to try.
        method: How its own ranges were chosen.
        error_of: On feeds that nothing else is learned from.
    """
    ranges: dict[str, Mapping[str, QParams]] = dict(plan.alternatives)
    if not any(ranges.values()):
        return plan, error_of(plan)
    names = list(next(iter(ranges.values())))
    ranges = {method: {name: plan.tensors[name] for name in names}, **ranges}
    size = -(-len(names) // PARTS)
    parts = [names[start : start + size] for start in range(0, len(names), size)]
    trials = [(f"{m}", names, m) for m in ranges if m != method]
    trials += [(f"{m} in part {i} of {len(parts)}", part, m) for i, part in enumerate(parts, 1) for m in ranges]
    best, least, taken = plan, error_of(plan), [method]
    first = least
    for done, (told, part, other) in enumerate(trials):
        progress(done, len(trials))
        changed = best.model_copy(update={"tensors": best.tensors | {name: ranges[other][name] for name in part}})
        if changed.tensors == best.tensors:
            continue
        error = error_of(changed)
        if error < WORTH * least:
            best, least, taken = changed, error, [told] if part is names else [*taken, told]
    if best is not plan:
        choice = f"{', then '.join(taken)}: error of the outputs {least:.2g}, with {method} {first:.2g}"
        best = best.model_copy(update={"range_choice": choice})
    return best.model_copy(update={"alternatives": {}}), least
