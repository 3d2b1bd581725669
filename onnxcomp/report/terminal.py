"""The report as a terminal shows it: before and after in one table, what was done, what not and why, and the verdict line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from onnxcomp.report.structures import Benchmark, ModelFacts, Report, Skip, StepReport, Verdict
from onnxcomp.report.text import printable

STYLES = {
    Verdict.PASSED: "bold green",
    Verdict.DONE: "bold green",
    Verdict.NOTHING_GAINED: "bold yellow",
    Verdict.FAILED: "bold red",
}
MAX_OPERATORS = 12
MAX_REASONS = 8


def render(report: Report, *, verbose: bool = False) -> RenderableType:
    """Everything but the verdict line, which belongs to the log (`verdict_line`)."""
    parts: list[RenderableType] = [_summary(report), _operators(report.source, report.result)]
    parts += [_step(step, verbose) for step in report.steps]
    parts += [
        Text(
            f"{'!' if n.level == 'warning' else '·'} {printable(n.sentence, 400)}",
            style="yellow" if n.level == "warning" else "dim",
        )
        for n in report.notes
    ]
    return Group(*parts)


def verdict_line(report: Report) -> Text:
    """PASSED  2.31 → 0.61 MB (3.8 × smaller), 1.4 × as fast → path."""
    where = f"  → {printable(report.result_path, 300)}" if report.result_path else ""
    return Text.assemble((report.verdict.value, STYLES[report.verdict]), f"  {printable(report.sentence, 2000)}{where}")


def print_report(report: Report, console: Console, *, verbose: bool = False) -> None:
    console.print(render(report, verbose=verbose))


def benchmark_table(result: Benchmark) -> Table:
    """Latencies of all models, milliseconds, and speed-ups over the first."""
    title = f"{result.provider_requested} (effective: {', '.join(result.providers_effective)}), {result.threads} threads, milliseconds"
    table = Table(title=escape(title), box=SIMPLE_HEAD, title_justify="left")
    table.add_column("model", overflow="fold")
    for name in ("min", "p10", "median", "p90", "p99", "CoV", "rounds", "speed-up"):
        table.add_column(name, justify="right")
    for name, latency in result.latency.items():
        speed = (
            "1.00"
            if name not in result.speedup
            else f"{result.speedup[name]:.2f} ({result.interval[name][0]:.2f}–{result.interval[name][1]:.2f})"
        )
        figures = (latency.minimum, latency.p10, latency.median, latency.p90, latency.p99)
        table.add_row(
            escape(printable(name)), *(f"{v:.3f}" for v in figures), f"{latency.cov:.1%}", str(latency.rounds), speed
        )
    return table


def _summary(report: Report) -> Table:
    before, after = report.source, report.result
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, justify in (("", "left"), ("before", "right"), ("after", "right"), ("change", "right")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    table.add_row("size", _bytes(before.bytes), _bytes(after.bytes), _factor(before.bytes, after.bytes, "smaller"))
    table.add_row(
        "parameters",
        f"{before.parameters:,}",
        f"{after.parameters:,}",
        _factor(before.parameters, after.parameters, "fewer"),
    )
    table.add_row("MACs", _macs(before), _macs(after), "")
    table.add_row("nodes", f"{before.nodes:,}", f"{after.nodes:,}", "")
    if report.benchmark is not None:
        names = list(report.benchmark.latency)
        first, last = (report.benchmark.latency[n] for n in (names[0], names[-1]))
        low, high = report.benchmark.interval[names[-1]]
        speed = f"{report.benchmark.speedup[names[-1]]:.2f} × as fast ({low:.2f}–{high:.2f})"
        proven = "" if report.benchmark.verdict == "VALID" else " UNSTABLE"
        table.add_row(
            f"latency p10, {report.benchmark.threads} threads",
            f"{first.p10:.3f} ms",
            f"{last.p10:.3f} ms",
            speed + proven,
        )
    if report.metric is not None:
        m = report.metric
        table.add_row(
            f"{escape(printable(m.name))} (n={m.samples})", f"{m.before:.4f}", f"{m.after:.4f}", f"{-m.drop:+.4f}"
        )
    for f in report.fidelity[:4]:
        agreement = "" if f.top1_agreement is None else f", top-1 agrees {f.top1_agreement:.2%}"
        table.add_row(
            f"output {escape(printable(f.output, 24))}",
            "",
            f"cosine {f.cosine:.5f}",
            f"SQNR {f.sqnr_db:.1f} dB{agreement}",
        )
    return table


def _operators(before: ModelFacts, after: ModelFacts) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name, justify in (("operator", "left"), ("before", "right"), ("after", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    names = sorted(
        {*before.operators, *after.operators}, key=lambda n: -max(before.operators.get(n, 0), after.operators.get(n, 0))
    )
    for name in names[:MAX_OPERATORS]:
        a, b = before.operators.get(name, 0), after.operators.get(name, 0)
        table.add_row(escape(printable(name)), str(a), str(b), style="" if a == b else "bold")
    if len(names) > MAX_OPERATORS:
        table.add_row(f"… {len(names) - MAX_OPERATORS} more types", "", "")
    return table


def _step(step: StepReport, verbose: bool) -> Text:
    text = Text.assemble((f"{step.name}: {step.status.value}", "bold"), f" — {printable(step.why, 400)}")
    if len(step.attempts) > 1:
        for attempt in step.attempts:
            text.append(
                f"\n  try: {printable(attempt.description, 200)}: {'kept' if attempt.kept else 'not kept'}, {printable(attempt.why, 300)}",
                "dim",
            )
    for sentence in step.summary:
        text.append(f"\n  {printable(sentence, 300)}")
    if step.audit is not None:
        kernels = ", ".join(f"{n} {k}" for k, n in step.audit.integer_kernels.items())
        text.append(f"\n  integer kernels: {kernels or 'none'}")
        if step.audit.float_heavy:
            text.append(
                "\n  heavy operators in float: " + ", ".join(f"{n} {k}" for k, n in step.audit.float_heavy.items())
            )
    for line in skip_lines(step.skips, MAX_REASONS if not verbose else None):
        text.append(f"\n  {line}", "dim")
    return text


def skip_lines(skips: Iterable[Skip], limit: int | None) -> list[str]:
    """Nodes left alone, grouped by operator and reason; each one by name when there is no limit."""
    skips = list(skips)
    if limit is None:
        return [
            f"left alone: {printable(s.node)} ({printable(s.op_type)}) [{s.code}] {printable(s.sentence, 200)}"
            for s in skips
        ]
    groups = Counter((s.op_type, s.code, s.sentence) for s in skips)
    lines = [
        f"left alone: {n} × {printable(op)} [{code}] {printable(sentence, 200)}"
        for (op, code, sentence), n in groups.most_common(limit)
    ]
    return lines + (
        [f"… {len(groups) - limit} more reasons: -v or the JSON report names every node"] if len(groups) > limit else []
    )


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def _macs(facts: ModelFacts) -> str:
    return "unknown" if facts.macs is None else f"{facts.macs / 1e6:,.1f} M"


def _factor(before: float, after: float, word: str) -> str:
    if not after or before == after:
        return ""
    return f"{before / after:.2f} × {word}" if before >= after else f"{after / before:.2f} × larger"
