"""What the sections of the page show, from a report: figures with their bars, tables with their pictures, capped."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isnan

from markupsafe import Markup

from onnxcomp.report.figures import factor, meaning, size
from onnxcomp.report.html.pictures import bar
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import (
    Benchmark,
    Channels,
    GateResult,
    KernelPair,
    Layer,
    OutputFidelity,
    Report,
    Skip,
    StepReport,
)

MAX_SKIPS = 3000
MAX_OUTPUTS = 60
MAX_ROWS = 200
"""Of tables of layers and of sentences."""

MAX_KERNELS, MAX_VALUES = 16, 12
"""Of tables of what is slow or far apart: what comes behind is neither."""


RESCALED = 0.1
"""Relative error from which on a value may well mean something else: equalised channels, smoothed activations."""


@dataclass(frozen=True)
class Bar:
    """One bar of a figure: its name, its length, and the same in words."""

    name: str
    picture: Markup
    words: str


@dataclass(frozen=True)
class Figure:
    """A figure that the page begins with: what it is, how it changed, and how it was and is."""

    name: str
    headline: str
    remark: str = ""
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True)
class LeftAlone:
    """A skipped node and the step that skipped it."""

    step: str
    skip: Skip


def same_model(report: Report) -> bool:
    """Whether there is no other model than the source: nothing was gained, or only planned."""
    first, last = report.source, report.result
    return (first.sha256, first.bytes) == (last.sha256, last.bytes) and report.command != "verify"


def names(report: Report) -> tuple[str, str]:
    """What the two models are called."""
    return ("reference", "model") if report.command == "verify" else ("before", "after")


def headlines(report: Report) -> Iterator[Figure]:
    """Size, latency and closeness, as far as they were found."""
    before, after = names(report)
    if not same_model(report):
        first, last = report.source.bytes, report.result.bytes
        full = max(first, last)
        bars = (
            Bar(before, bar(first, full, "before"), size(first)),
            Bar(after, bar(last, full, "after"), size(last)),
        )
        yield Figure("Size", factor(first, last, "smaller") or "unchanged", bars=bars)
    if report.benchmark is not None and report.benchmark.speedup:
        yield _latency(report.benchmark, before, after, report.target_is_host)
    if report.metric is not None:
        m = report.metric
        told = f"{m.before:.4f} → {m.after:.4f} on {m.samples:,} labelled samples"
        yield Figure(m.name, f"{0.0 - m.drop:+.4f}", told)
    elif report.fidelity:
        worst = min(report.fidelity, key=_closeness)
        of = f"of {worst.output}" if len(report.fidelity) == 1 else f"of the worst of {len(report.fidelity)} outputs"
        agrees = worst.top1_agreement
        told = "" if agrees is None else f"; arg-max agrees in {agrees:.2%}"
        yield Figure("Cosine to the original", f"{worst.cosine:.5f}", f"{of}{told}")


def _latency(b: Benchmark, before: str, after: str, target_is_host: bool) -> Figure:
    first, *_, last = b.latency
    p10, speed = b.latency[first].p10, b.speedup[last]
    slow, fast = (p10 / ratio for ratio in b.interval[last])
    full = max(p10, slow)
    bars = (
        Bar(before, bar(p10, full, "before"), f"{p10:.3f} ms"),
        Bar(after, bar(b.latency[last].p10, full, "after", (fast, slow)), f"{b.latency[last].p10:.3f} ms"),
    )
    low, high = b.interval[last]
    remark = f"95 %: {low:.2f}–{high:.2f}" if b.verdict == "VALID" else "not proven: the measurement was unstable"
    remark = remark if target_is_host else "on this machine; UNVERIFIED for the target"
    return Figure("Latency", f"{speed:.2f} × as fast" if speed >= 1 else f"{1 / speed:.2f} × slower", remark, bars)


def outputs(report: Report) -> list[OutputFidelity]:
    """The outputs, the least close first."""
    return sorted(report.fidelity, key=_closeness)[:MAX_OUTPUTS]


def _closeness(output: OutputFidelity) -> float:
    return -2.0 if isnan(output.cosine) else output.cosine


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


def cells(step: StepReport) -> list[Channels]:
    """The cells of a step in the order of the graph; of a great many those that lose most."""
    if len(step.channels) <= MAX_ROWS:
        return list(step.channels)
    worst = {c.name for c in sorted(step.channels, key=lambda c: (c.kept / c.size, c.name))[:MAX_ROWS]}
    return [c for c in step.channels if c.name in worst][:MAX_ROWS]


def layers(step: StepReport) -> list[Layer]:
    """The layers of a step, those in factors first, then those that stay whole; capped."""
    return sorted(step.layers, key=lambda x: x.rank is None)[:MAX_ROWS]


def left_alone(report: Report) -> list[LeftAlone]:
    """Every skipped node of every step, each reason of a step once for a node; not capped."""
    found: dict[tuple[str, str], LeftAlone] = {}
    for step in report.steps:
        for skip in (*(step.audit.stayed_float if step.audit else ()), *step.skips):
            found[step.name, skip.node] = LeftAlone(step.name, skip)
    return list(found.values())


def reasons(found: Iterable[LeftAlone]) -> list[tuple[Reason, int, str, str]]:
    """(code, nodes, their operators, what it means), the most frequent first."""
    groups: dict[Reason, list[Skip]] = defaultdict(list)
    for entry in found:
        groups[entry.skip.code].append(entry.skip)
    rows = []
    for code, members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        kinds = Counter(s.op_type for s in members).most_common(5)
        operators = ", ".join(f"{number} {kind}" for kind, number in kinds)
        rows.append((code, len(members), operators, meaning(code, members)))
    return rows


def operators(report: Report) -> list[tuple[str, int, int]]:
    """(operator, before, after) of the types whose number changed, the largest change first."""
    before, after = report.source.operators, report.result.operators
    rows = [(n, before.get(n, 0), after.get(n, 0)) for n in {*before, *after} if before.get(n, 0) != after.get(n, 0)]
    return sorted(rows, key=lambda row: (-abs(row[1] - row[2]), row[0]))[:MAX_ROWS]


def counts(kernel: KernelPair) -> str:
    """How many nodes are such kernels: × 10, or × 10 → 12 where it changed."""
    first, last = kernel.nodes
    return f"× {last}" if first == last else f"× {first} → {last}"


def capped(shown: int, found: int, what: str) -> str:
    """The sentence that says that a table does not show everything; empty if it does.

    >>> capped(200, 1234, "layers")
    '200 of 1,234 layers are shown; the JSON report has all of them.'
    """
    return "" if shown >= found else f"{shown:,} of {found:,} {what} are shown; the JSON report has all of them."


def heaviest(counts: Sequence[float]) -> float:
    """The end of the scale of a column of bars."""
    return max(counts, default=1.0) or 1.0
