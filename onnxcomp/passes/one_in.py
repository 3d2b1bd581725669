"""What each changed unit of a plan costs by itself: the error of the outputs with only that unit changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

MAX_GROUPS = 32
"""Errors are measured for at most so many groups of neighbouring units: one session each."""


def one_in(names: Sequence[str], error_with: Callable[[frozenset[str]], float]) -> dict[str, float]:
    """Error of the outputs with only one group of neighbours changed, shared out among its units.

    Args:
        names: The changed units, in the order of the graph.
        error_with: Error of the outputs when exactly these units are changed.

    >>> one_in(["a", "b"], lambda changed: 0.25 if "a" in changed else 0.0)
    {'a': 0.25, 'b': 0.0}
    """
    size = max(1, -(-len(names) // MAX_GROUPS))
    losses: dict[str, float] = {}
    for start in range(0, len(names), size):
        group = names[start : start + size]
        losses |= dict.fromkeys(group, error_with(frozenset(group)) / len(group))
    return losses
