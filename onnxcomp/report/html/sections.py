"""What the sections of a report show: rows for its tables, ordered and capped."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan

from onnxcomp.report.figures import meaning
from onnxcomp.report.html.words import MAX_OUTPUTS, MAX_ROWS
from onnxcomp.report.inspection import Inspection
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import Channels, Layer, OutputFidelity, Report, Skip, StepReport


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


def outputs(fidelity: Iterable[OutputFidelity]) -> list[OutputFidelity]:
    """The outputs, the least close first; capped."""
    return sorted(fidelity, key=closeness)[:MAX_OUTPUTS]


def closeness(output: OutputFidelity) -> float:
    """What is not a number is the least close."""
    return -2.0 if isnan(output.cosine) else output.cosine


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


def left_by_passes(found: Inspection) -> list[LeftAlone]:
    """Every node that some pass would leave alone; not capped."""
    return [LeftAlone(prospect.name, skip) for prospect in found.prospects for skip in prospect.skips]


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


def codes(groups: Iterable[tuple[Reason, int, str, str]]) -> list[tuple[str, int]]:
    """(reason, nodes) to choose among."""
    return [(code.value, count) for code, count, _, _ in groups]


def steps(found: Iterable[LeftAlone]) -> list[tuple[str, int]]:
    """(step, nodes that it left alone) to choose among."""
    return list(Counter(entry.step for entry in found).items())


def operators(report: Report) -> list[tuple[str, int, int]]:
    """(operator, before, after) of the types whose number changed, the largest change first."""
    before, after = report.source.operators, report.result.operators
    rows = [(n, before.get(n, 0), after.get(n, 0)) for n in {*before, *after} if before.get(n, 0) != after.get(n, 0)]
    return sorted(rows, key=lambda row: (-abs(row[1] - row[2]), row[0]))[:MAX_ROWS]
