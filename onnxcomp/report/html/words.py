"""Figures as the pages word them, and what their scales and caps are."""

from __future__ import annotations

from collections.abc import Sequence

from onnxcomp.report.figures import size
from onnxcomp.report.structures import ActivationRange, GateResult, KernelPair

MAX_SKIPS = 3000
MAX_NODES = 2000
MAX_OUTPUTS = 60
MAX_ROWS = 200
"""Of tables of layers and of sentences."""

MAX_KERNELS, MAX_VALUES = 16, 12
"""Of tables of what is slow or far apart: what comes behind is neither."""

FEW_HISTOGRAMS = 12
"""Shown at once; the others can be unfolded."""


def decibels(value: float) -> str:
    """41.1 dB; ∞ where nothing differs.

    >>> decibels(41.14), decibels(float("inf"))
    ('41.1 dB', 'exact')
    """
    return "exact" if value == float("inf") else f"{value:.1f} dB"


def percent(share: float) -> str:
    """Whole percents; everything and nothing are said only of everything and nothing.

    >>> percent(1.0), percent(0.9999), percent(0.503), percent(0.001)
    ('100 %', '> 99 %', '50 %', '< 1 %')
    """
    if 0 < share < 0.01 or 0.99 < share < 1:
        return "< 1 %" if share < 0.5 else "> 99 %"
    return f"{100 * share:.0f} %"


def gate_words(gate: GateResult) -> str:
    """cosine of logits is 0.9999, wanted ≥ 0.99."""
    return f"{gate.name} is {gate.value:.4f}, wanted {gate.wanted}"


def counts(kernel: KernelPair) -> str:
    """How many nodes are such kernels: × 10, or × 10 → 12 where it changed."""
    first, last = kernel.nodes
    return f"× {last}" if first == last else f"× {first} → {last}"


def clipped(r: ActivationRange) -> str:
    """How much a range clips, and why what lies beyond may be of no harm: `0.012 % clipped`."""
    share = f"{100 * r.clipped:.2g} % clipped" if r.clipped else "nothing clipped"
    if r.through and r.beyond > r.clipped:
        flattened = "the rest" if r.clipped else "them"
        return f"{share} ({100 * r.beyond:.2g} % lie beyond; {r.through} flattens {flattened})"
    return share


def interval(low: float, high: float) -> str:
    """−1.2 … 3.4."""
    return f"{low:.3g} … {high:.3g}".replace("-", "−")


def held(count: int) -> str:
    """Bytes of weights; nothing where there are none.

    >>> held(0), held(512), held(2_480_000)
    ('', '512 B', '2.48 MB')
    """
    return "" if not count else f"{count} B" if count < 1000 else size(count)


def sentence(text: str) -> str:
    """With a capital letter; `capitalize` would make the others small.

    >>> sentence("static INT8")
    'Static INT8'
    """
    return text[:1].upper() + text[1:]


def capped(shown: int, found: int, what: str) -> str:
    """The sentence that says that a table does not show everything; empty if it does.

    >>> capped(200, 1234, "layers")
    '200 of 1,234 layers are shown; the JSON report has all of them.'
    """
    return "" if shown >= found else f"{shown:,} of {found:,} {what} are shown; the JSON report has all of them."


def heaviest(counts: Sequence[float]) -> float:
    """The end of the scale of a column of bars."""
    return max(counts, default=1.0) or 1.0
