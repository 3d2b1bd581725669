"""The judge: the original's answers to the evaluation feeds, against which every candidate is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.readers import Feed, Reader
from onnxcomp.errors import DataError
from onnxcomp.evaluate.fidelity import Comparison, score_outputs
from onnxcomp.evaluate.gates import Gates
from onnxcomp.evaluate.metrics import Metric
from onnxcomp.model.signature import signature
from onnxcomp.report.structures import GateResult, MetricResult, OutputFidelity
from onnxcomp.runtime.session import SessionConfig, open_session

CACHE_BYTES = 512 * 2**20
"""Answers of the original are kept in memory up to this; beyond it they are computed again for each candidate."""

Answers = list[np.ndarray]


@dataclass(frozen=True)
class Judgement:
    """Figures of one candidate, and the gates' results."""

    fidelity: tuple[OutputFidelity, ...]
    metric: MetricResult | None
    gates: tuple[GateResult, ...]

    @property
    def passed(self) -> bool:
        return all(g.passed for g in self.gates)

    @property
    def error(self) -> float:
        """1 − cosine of the worst output."""
        return max((1.0 - f.cosine for f in self.fidelity), default=0.0)


class Judge:
    """Compares candidates with the original on the same feeds.

    Args:
        reference: The original model.
        reader: Evaluation feeds, with labels where there are some.
        config: Session for both.
        gates: What to ask for.
        metric: Score on the labels; None without labels.
        progress: Called after each feed of a candidate.
    """

    def __init__(
        self,
        reference: ir.Model,
        reader: Reader,
        config: SessionConfig,
        gates: Gates,
        metric: Metric | None = None,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> None:
        if metric is not None and reader.labels is None:
            raise DataError(
                f"metric {metric.name!r} needs labels, and {reader.name} has none",
                hint="put them into the array y, or leave --metric out",
            )
        self.reader, self.gates, self.metric = reader, gates, metric
        self._reference, self._config, self._progress = reference, config, progress
        self._cache: list[Answers] | None = []
        self._score: float | None = None
        self._scores = score_outputs(reference)
        self.outputs = tuple(port.name for port in signature(reference).outputs)

    def judge(self, candidate: ir.Model) -> Judgement:
        """Runs all evaluation feeds through `candidate`."""
        comparisons, answers, references = self._compared(candidate, None)
        fidelity = tuple(c.result() for c in comparisons)
        metric = self._metric(references, answers) if self.metric is not None else None
        return Judgement(fidelity, metric, self.gates.check(fidelity, metric))

    def quick_error(self, candidate: ir.Model, feeds: int = 8) -> float:
        """1 − cosine of the worst output over the first few feeds."""
        comparisons, _, _ = self._compared(candidate, feeds)
        return max((1.0 - c.result().cosine for c in comparisons), default=0.0)

    def _compared(
        self, candidate: ir.Model, feeds: int | None
    ) -> tuple[list[Comparison], list[Answers], list[Answers]]:
        comparisons = [Comparison(name, name in self._scores) for name in self.outputs]
        answers: list[Answers] = []
        references: list[Answers] = []
        count = 0
        with open_session(candidate, self._config) as session:
            for feed, reference in self._references(feeds):
                answer = session.run(feed, self.outputs)
                for comparison, y, z in zip(comparisons, reference, answer, strict=True):
                    comparison.add(y, z)
                if self.metric is not None and feeds is None:
                    answers.append(answer)
                    references.append(reference)
                count += 1
                if self._progress and feeds is None:
                    self._progress(count, self.reader.count)
        if not count:
            raise DataError("the evaluation set is empty")
        return comparisons, answers, references

    def _references(self, feeds: int | None) -> Iterator[tuple[Feed, Answers]]:
        """Feeds with the original's answers, from the cache while it holds (all feeds or none)."""
        if self._cache:
            yield from zip(islice(self.reader, feeds), self._cache, strict=False)
            return
        fill: list[Answers] | None = [] if self._cache is not None and feeds is None else None
        size = 0
        with open_session(self._reference, self._config) as session:
            for feed in islice(self.reader, feeds):
                answer = session.run(feed, self.outputs)
                size += sum(a.nbytes for a in answer if isinstance(a, np.ndarray))
                if fill is not None:
                    fill.append(answer)
                    if size > CACHE_BYTES:
                        fill = None
                yield feed, answer
        if feeds is None:
            self._cache = fill

    def _metric(self, references: Sequence[Answers], answers: Sequence[Answers]) -> MetricResult:
        assert self.metric is not None
        assert self.reader.labels is not None
        labels = list(self.reader.labels)
        if self._score is None:
            self._score = self.metric.score(references, labels)
        after = self.metric.score(answers, labels)
        samples = int(sum(np.size(label) for label in labels))
        return MetricResult(
            name=self.metric.name,
            before=self._score,
            after=after,
            drop=self.metric.drop(self._score, after),
            samples=samples,
        )
