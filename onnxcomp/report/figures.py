"""The figures of a report as words, which the terminal and Markdown share."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping

from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import Benchmark, DataFacts, Report, Skip, StepReport
from onnxcomp.report.text import printable

MAX_OPERATORS = 16


def summary_rows(report: Report) -> Iterator[tuple[str, str, str, str]]:
    """(what, before, after, change); a change too small to be seen in the figures is left out."""
    before, after = report.source, report.result
    yield "size", size(before.bytes), size(after.bytes), factor(before.bytes, after.bytes, "smaller")
    yield (
        "parameters",
        f"{before.parameters:,}",
        f"{after.parameters:,}",
        factor(before.parameters, after.parameters, "fewer"),
    )
    yield "MACs", macs(before.macs), macs(after.macs), ""
    yield "nodes", f"{before.nodes:,}", f"{after.nodes:,}", ""
    if report.benchmark is not None:
        names = list(report.benchmark.latency)
        first, last = (report.benchmark.latency[n] for n in (names[0], names[-1]))
        low, high = report.benchmark.interval[names[-1]]
        proof = f"({low:.2f}–{high:.2f})" if report.benchmark.verdict == "VALID" else "(not proven)"
        proof = proof if report.target_is_host else "(UNVERIFIED)"
        speed = f"{report.benchmark.speedup[names[-1]]:.2f} × as fast {proof}"
        yield "latency p10", f"{first.p10:.3f} ms", f"{last.p10:.3f} ms", speed
    if report.metric is not None:
        yield (
            printable(report.metric.name, 24),
            f"{report.metric.before:.4f}",
            f"{report.metric.after:.4f}",
            f"{0.0 - report.metric.drop:+.4f}",
        )


def data_lines(report: Report) -> Iterator[str]:
    """What the figures stand on: the machine, the feeds."""
    if report.benchmark is not None:
        yield f"latency {measured_on(report.benchmark)}"
    judged = report.fidelity or report.metric or any(step.attempts for step in report.steps)
    if report.evaluation is not None and judged:
        labels = "with labels" if report.evaluation.labels else "no labels"
        yield f"judged on {feeds_line(report.evaluation)}, {labels}"
    if report.calibration is not None:
        yield f"learned from {feeds_line(report.calibration)}"
    elsewhere = "" if report.target_is_host else ", for which figures from this machine are UNVERIFIED"
    yield f"target {report.target}{elsewhere}; {printable(report.host, 120)}; {report.duration_s:.0f} s"


def measured_on(benchmark: Benchmark) -> str:
    """Provider as asked for and as it was, threads and shapes of a measurement."""
    effective = ", ".join(benchmark.providers_effective)
    shapes = ", ".join(
        f"{printable(n, 24)} {'×'.join(map(str, s)) or 'scalar'}" for n, s in list(benchmark.shapes.items())[:4]
    )
    more = f" and {len(benchmark.shapes) - 4} inputs more" if len(benchmark.shapes) > 4 else ""
    threads = "1 thread" if benchmark.threads == 1 else f"{benchmark.threads} threads"
    return f"on {benchmark.provider_requested} ({effective}), {threads}, {shapes}{more}"


def changed_operators(report: Report) -> list[tuple[str, str, str]]:
    """(operator, before, after) of the types whose number changed, largest change first."""
    before, after = report.source.operators, report.result.operators
    changed = [n for n in {*before, *after} if before.get(n, 0) != after.get(n, 0)]
    changed.sort(key=lambda n: (-abs(before.get(n, 0) - after.get(n, 0)), n))
    rows = [(printable(n), str(before.get(n, 0)), str(after.get(n, 0))) for n in changed[:MAX_OPERATORS]]
    if len(changed) > MAX_OPERATORS:
        rows.append((f"… {len(changed) - MAX_OPERATORS} types more", "", ""))
    return rows


def skip_lines(step: StepReport, limit: int | None) -> list[str]:
    """Nodes that a step left alone, grouped by reason, at most `limit` of them; without a limit with their names.

    A node that was written as INT8 and still runs in float was not left alone by the plan, but belongs here.
    """
    skips = {s.node: s for s in (*(step.audit.stayed_float if step.audit else ()), *step.skips)}.values()
    lines = reason_lines(skips, limit)
    if lines and limit is not None:
        lines.append("-v and the JSON report name every node")
    return lines


def reason_lines(skips: Collection[Skip], limit: int | None) -> list[str]:
    """Skips by reason, the most frequent first, at most `limit`; without a limit with the names of the nodes."""
    if limit is None:
        named: dict[tuple[Reason, str], list[str]] = defaultdict(list)
        for s in skips:
            named[s.code, s.sentence].append(f"{printable(s.node)} ({printable(s.op_type, 40)})")
        return [
            f"left alone [{code}] {printable(why, 200).rstrip('.')}: {', '.join(names)}"
            for (code, why), names in named.items()
        ]
    groups: dict[Reason, list[Skip]] = defaultdict(list)
    for skip in skips:
        groups[skip.code].append(skip)
    largest = sorted(groups.items(), key=lambda item: -len(item[1]))
    lines = []
    for code, members in largest[:limit]:
        kinds = listed(dict(Counter(s.op_type for s in members).most_common()))
        lines.append(f"left alone: {kinds} [{code}] {printable(meaning(code, members), 300)}")
    if len(groups) > limit:
        lines.append(f"… {len(groups) - limit} reasons more")
    return lines


def meaning(code: Reason, skips: Collection[Skip]) -> str:
    """Why nodes of one reason were left alone: the sentence that all share, or what the reason means and the first."""
    sentences = list(dict.fromkeys(s.sentence for s in skips))
    return sentences[0] if len(sentences) == 1 else f"{DESCRIPTIONS[code]} For one: {sentences[0]}"


def listed(counts: Mapping[str, int], limit: int = 8) -> str:
    """10 Conv, 2 Add."""
    shown = [f"{number} {printable(name, 40)}" for name, number in list(counts.items())[:limit]]
    return ", ".join(shown) + (f", … {len(counts) - limit} types more" if len(counts) > limit else "")


def size(count: int) -> str:
    """Bytes in decimal units, as file managers and registries show them.

    >>> size(1_640_000), size(2_040), size(8)
    ('1.64 MB', '2.0 kB', '8 B')
    """
    if count >= 1_000_000_000:
        return f"{count / 1e9:.2f} GB"
    if count < 1_000:
        return f"{count} B"
    return f"{count / 1e6:.2f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def factor(before: float, after: float, word: str) -> str:
    """`word` is smaller or fewer: 3.66 × smaller, 1.20 × larger; nothing where two digits show no change."""
    if not before or not after or 0.995 < before / after < 1.005:
        return ""
    if before > after:
        return f"{before / after:.2f} × {word}"
    return f"{after / before:.2f} × {'larger' if word == 'smaller' else 'more'}"


def count_macs(count: int) -> str:
    """In millions, or billions.

    >>> count_macs(4_111_514_624), count_macs(23_129_984), count_macs(640)
    ('4.11 G', '23.1 M', '640')
    """
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            digits = 2 if count < 10 * unit else 1 if count < 100 * unit else 0
            return f"{count / unit:,.{digits}f} {letter}"
    return str(count)


def macs(count: int | None) -> str:
    """MACs, or that they are unknown."""
    return "unknown" if count is None else count_macs(count)


def feeds_line(data: DataFacts) -> str:
    """`100 real feeds (test.npz)`; random ones in capitals."""
    kind = "RANDOM" if data.kind == "random" else "real"
    return f"{data.samples:,} {kind} feed{'' if data.samples == 1 else 's'} ({printable(data.name, 60)})"


def channel_rows(step: StepReport, most: int | None) -> list[tuple[str, ...]]:
    """(cell, channels, kept) of what is cut, the largest cuts first; at most `most`."""
    cut = sorted((c for c in step.channels if c.kept < c.size), key=lambda c: (c.kept / c.size, c.name))
    return [(printable(c.name, 44), str(c.size), str(c.kept), "" if c.exact else "approximate") for c in cut[:most]]


def layer_rows(step: StepReport, most: int | None) -> list[tuple[str, ...]]:
    """(layer, size, rank, break-even, energy kept) of what is factorised, the most costly first; at most `most`."""
    cut = sorted((x for x in step.layers if x.rank is not None), key=lambda x: (-x.loss, x.name))
    return [
        (
            printable(x.name, 36),
            x.size,
            f"{x.rank}{' spatial' * (x.form == 'spatial')}",
            f"{x.break_even:.0f}",
            f"{x.energy:.2%}",
        )
        for x in cut[:most]
    ]


def layers_left(step: StepReport, shown: int) -> str:
    """What a table of `shown` layers leaves out, in words; empty if nothing."""
    return _left(sum(x.rank is not None for x in step.layers), len(step.layers), shown, "layer", "factorised")


def cells_left(step: StepReport, shown: int) -> str:
    """What a table of `shown` cells leaves out, in words; empty if nothing."""
    return _left(sum(c.kept < c.size for c in step.channels), len(step.channels), shown, "cell", "cut")


def _left(cut: int, all_of: int, shown: int, noun: str, verb: str) -> str:
    whole, more = all_of - cut, cut - shown
    parts = [f"{more} more {noun}{' is' if more == 1 else 's are'} {verb}"] if more > 0 else []
    parts += [f"{whole} {noun}{' stays' if whole == 1 else 's stay'} whole"] if whole else []
    return "; ".join(parts)
