"""The figures that a page begins with: size, latency, closeness."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from onnxcomp.report.comparison import ModelComparison
from onnxcomp.report.figures import factor, size
from onnxcomp.report.html.pictures import bar
from onnxcomp.report.html.sections import closeness, names, same_model
from onnxcomp.report.inspection import Inspection
from onnxcomp.report.inspection_figures import all_macs
from onnxcomp.report.structures import Benchmark, MetricResult, OutputFidelity, Report
from onnxcomp.report.text import plural

Pair = tuple[str, str]


@dataclass(frozen=True)
class Bar:
    """One bar of a figure: its name, its length, and the same in words."""

    name: str
    picture: Markup
    words: str


@dataclass(frozen=True)
class Figure:
    """A figure: what it is, how it changed, and how it was and is."""

    name: str
    headline: str
    remark: str = ""
    bars: tuple[Bar, ...] = ()


def of_report(r: Report) -> Iterator[Figure]:
    """Size, latency and closeness, as far as they were found."""
    called = names(r)
    if not same_model(r):
        yield _size(r.source.bytes, r.result.bytes, called)
    if r.benchmark is not None and r.benchmark.speedup:
        yield _latency(r.benchmark, called, r.target_is_host)
    yield from _closeness(r.metric, r.fidelity, "the original")


def of_comparison(c: ModelComparison) -> Iterator[Figure]:
    """The same of two models."""
    yield _size(c.a.bytes, c.b.bytes, ("A", "B"))
    yield _latency(c.benchmark, ("A", "B"), True)
    yield from _closeness(c.metric, c.fidelity, "A")


def of_inspection(found: Inspection) -> Iterator[Figure]:
    """What the model weighs and computes."""
    facts = found.model
    yield Figure("Size", size(facts.bytes), f"opset {facts.opset}")
    yield Figure("Parameters", f"{facts.parameters:,}", f"{size(facts.weight_bytes)} of weights")
    unknown = facts.macs_unknown
    told = f"without {plural(unknown, 'node')} of unknown shape" if unknown else "of one call"
    yield Figure("Multiply-accumulates", all_macs(found), told)
    yield Figure("Nodes", f"{facts.nodes:,}", f"of {len(facts.operators):,} operators")


def _size(first: int, last: int, called: Pair) -> Figure:
    full = max(first, last)
    bars = (
        Bar(called[0], bar(first, full, "before"), size(first)),
        Bar(called[1], bar(last, full, "after"), size(last)),
    )
    return Figure("Size", factor(first, last, "smaller") or "unchanged", bars=bars)


def _latency(b: Benchmark, called: Pair, target_is_host: bool) -> Figure:
    first, *_, last = b.latency
    p10, speed = b.latency[first].p10, b.speedup[last]
    slow, fast = (p10 / ratio for ratio in b.interval[last])
    full = max(p10, slow)
    bars = (
        Bar(called[0], bar(p10, full, "before"), f"{p10:.3f} ms"),
        Bar(called[1], bar(b.latency[last].p10, full, "after", (fast, slow)), f"{b.latency[last].p10:.3f} ms"),
    )
    low, high = b.interval[last]
    remark = f"95 %: {low:.2f}–{high:.2f}" if b.verdict == "VALID" else "not proven: the measurement was unstable"
    remark = remark if target_is_host else "on this machine; UNVERIFIED for the target"
    return Figure("Latency", f"{speed:.2f} × as fast" if speed >= 1 else f"{1 / speed:.2f} × slower", remark, bars)


def _closeness(metric: MetricResult | None, fidelity: Sequence[OutputFidelity], to: str) -> Iterator[Figure]:
    if metric is not None:
        told = f"{metric.before:.4f} → {metric.after:.4f} on {metric.samples:,} labelled samples"
        yield Figure(metric.name, f"{0.0 - metric.drop:+.4f}", told)
    elif fidelity:
        worst = min(fidelity, key=closeness)
        of = f"of {worst.output}" if len(fidelity) == 1 else f"of the worst of {len(fidelity)} outputs"
        agrees = worst.top1_agreement
        told = "" if agrees is None else f"; arg-max agrees in {agrees:.2%}"
        yield Figure(f"Cosine to {to}", f"{worst.cosine:.5f}", f"{of}{told}")
