"""The report as a terminal of 80 columns shows it: before and after, how close, what was done, what not and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from onnxcomp.report.figures import (
    cells_left,
    changed_operators,
    channel_rows,
    data_lines,
    layer_rows,
    layers_left,
    listed,
    measured_on,
    skip_lines,
    summary_rows,
)
from onnxcomp.report.structures import Benchmark, Note, OutputFidelity, Report, StepReport, Verdict
from onnxcomp.report.text import printable

STYLES = {
    Verdict.PASSED: "bold green",
    Verdict.DONE: "bold green",
    Verdict.PLANNED: "bold green",
    Verdict.NOTHING_GAINED: "bold yellow",
    Verdict.FAILED: "bold red",
}
MAX_OUTPUTS = 6
MAX_REASONS = 8
MAX_CELLS = 12


def render(report: Report, *, verbose: bool = False) -> RenderableType:
    """Everything but the verdict line, which belongs to the log (`verdict_line`)."""
    parts: list[RenderableType] = [_summary(report)]
    parts += [Text(line, "dim") for line in data_lines(report)]
    if report.fidelity:
        parts.append(fidelity_table(report.fidelity))
    for gate in report.gates:
        mark, style = ("✓", "green") if gate.passed else ("✗", "bold red")
        parts.append(Text(f"{mark} {printable(gate.name)} is {gate.value:.4f}, wanted {printable(gate.wanted)}", style))
    operators = changed_operators(report)
    if operators:
        parts.append(plain_table(("operator", "before", "after"), operators))
    for step in report.steps:
        parts += [Text(), _step(step, verbose)]
    if report.notes:
        parts += [Text(), note_lines(report.notes)]
    return Group(*parts)


def verdict_line(report: Report) -> Text:
    """PASSED  2.31 → 0.61 MB (3.8 × smaller), 1.4 × as fast  → path."""
    where = f"  → {printable(report.result_path, 300)}" if report.result_path else ""
    return Text.assemble((report.verdict.value, STYLES[report.verdict]), f"  {printable(report.sentence, 2000)}{where}")


def note_lines(notes: Sequence[Note]) -> Text:
    """Warnings with an exclamation mark, and the rest."""
    lines = [
        Text.assemble(("! ", "bold yellow"), (printable(n.sentence, 600), "yellow"))
        if n.level == "warning"
        else Text(f"· {printable(n.sentence, 600)}", "dim")
        for n in notes
    ]
    return Text("\n").join(lines)


def benchmark_table(result: Benchmark) -> RenderableType:
    """Milliseconds of all models, and speed-ups over the first with their 95 % interval."""
    rows = []
    for name, latency in result.latency.items():
        speed = "1.00"
        if name in result.speedup:
            low, high = result.interval[name]
            speed = f"{result.speedup[name]:.2f} ({low:.2f}–{high:.2f})"
        figures = (latency.p10, latency.median, latency.p90, latency.p99)
        rows.append((printable(name, 60), *(f"{v:.3f}" for v in figures), speed))
    table = plain_table(("model", "p10", "median", "p90", "p99", "speed-up"), rows)
    rounds = min(latency.rounds for latency in result.latency.values())
    return Group(table, Text(f"milliseconds of {rounds:,} rounds, {measured_on(result)}", "dim"))


def benchmark_line(result: Benchmark) -> Text:
    """VALID or UNSTABLE, and what that means."""
    style = STYLES[Verdict.PASSED if result.verdict == "VALID" else Verdict.NOTHING_GAINED]
    first = next(iter(result.latency))
    found = (f"{printable(n)} is {s:.2f} × as fast as {printable(first)}" for n, s in result.speedup.items())
    sentence = result.reason or "; ".join(found) or f"10th percentile {result.latency[first].p10:.3f} ms"
    return Text.assemble((result.verdict, style), f"  {printable(sentence, 2000)}")


def _summary(report: Report) -> Table:
    names = ("reference", "model") if report.command == "verify" else ("before", "after")
    return plain_table(("", *names, ""), summary_rows(report))


def fidelity_table(fidelity: Sequence[OutputFidelity]) -> RenderableType:
    rows = [
        (
            printable(f.output, 32),
            f"{f.cosine:.5f}",
            f"{f.sqnr_db:.1f} dB",
            f"{f.max_abs:.3g}",
            "" if f.top1_agreement is None else f"{f.top1_agreement:.2%}",
        )
        for f in sorted(fidelity, key=lambda f: f.cosine)[:MAX_OUTPUTS]
    ]
    table = plain_table(("output", "cosine", "SQNR", "max |Δ|", "arg-max agrees"), rows)
    if len(fidelity) <= MAX_OUTPUTS:
        return table
    return Group(
        table, Text(f"… and {len(fidelity) - MAX_OUTPUTS} outputs that are closer: see the JSON report", "dim")
    )


def _step(step: StepReport, verbose: bool) -> RenderableType:
    lines: list[RenderableType] = [Text(printable(sentence, 300)) for sentence in step.summary]
    if len(step.attempts) > 1:
        for attempt in step.attempts:
            outcome = "kept" if attempt.kept else "not kept"
            tried = f"tried {printable(attempt.description, 200)}: {outcome}, {printable(attempt.why, 300)}"
            lines.append(Text(tried, "dim"))
    if step.audit is not None:
        lines.append(Text(f"integer kernels: {listed(step.audit.integer_kernels) or 'none'}"))
        if step.audit.float_heavy:
            lines.append(Text(f"heavy operators in float: {listed(step.audit.float_heavy)}"))
        lines.append(Text(f"conversions between float and INT8: {step.audit.conversions}"))
    rows = channel_rows(step, None if verbose else MAX_CELLS)
    if rows:
        lines.append(plain_table(("cell", "channels", "kept", ""), rows))
        left = cells_left(step, len(rows))
        lines += [Text(left, "dim")] if left else []
    factors = layer_rows(step, None if verbose else MAX_CELLS)
    if factors:
        lines.append(plain_table(("layer", "size", "rank", "even", "energy"), factors))
        left = layers_left(step, len(factors))
        lines += [Text(left, "dim")] if left else []
    lines += [Text(line, "dim") for line in skip_lines(step, None if verbose else MAX_REASONS)]
    head = Text.assemble((f"{step.name}: {step.status.value}", "bold"), f", {printable(step.why, 400)}")
    return Group(head, *(Padding(line, (0, 0, 0, 2), expand=False) for line in lines))


def plain_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Names to the left, figures to the right; what is too long for its column goes on in the next line."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", overflow="fold", no_wrap=bool(index))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
