"""Metrics on labelled feeds: a metric is a function of all outputs and all labels, and knows which way is better."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxcomp.calibration.script import load_function
from onnxcomp.errors import DataError, UsageError
from onnxcomp.report.text import meant

Outputs = Sequence[Sequence[np.ndarray]]
"""For each feed all outputs of the model, in its order."""


@dataclass(frozen=True)
class Metric:
    """A score on labels.

    Args:
        name: What `--metric` takes and the report shows.
        function: (outputs of each feed, label of each feed) -> score.
        higher_is_better: Which way the score improves.
        share: Whether it is a share of the samples, which moves in steps of one of them.
    """

    name: str
    function: Callable[[Outputs, Sequence[np.ndarray]], float]
    higher_is_better: bool = True
    share: bool = False

    def score(self, outputs: Outputs, labels: Sequence[np.ndarray]) -> float:
        """The score.

        Raises:
            DataError: The labels don't fit the outputs, or the metric failed.
        """
        try:
            return float(self.function(outputs, labels))
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"metric {self.name!r} failed: {type(error).__name__}: {error}",
                hint="do the labels fit the model's first output?",
            ) from error

    def drop(self, before: float, after: float) -> float:
        """How much worse `after` is, in the metric's own unit."""
        if before == after:  # two perfect PSNRs are both infinite
            return 0.0
        return before - after if self.higher_is_better else after - before


def _rows(outputs: Outputs, labels: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """First outputs as [rows, …] and labels as [rows]."""
    first = np.concatenate([np.asarray(o[0]).reshape(-1, np.asarray(o[0]).shape[-1]) for o in outputs])
    flat = np.concatenate([np.ravel(label) for label in labels])
    if len(first) != len(flat):
        raise DataError(f"{len(flat)} labels for {len(first)} rows of the first output")
    return first, flat


def top_k(k: int) -> Callable[[Outputs, Sequence[np.ndarray]], float]:
    """Share of rows whose label is among the k largest values of the last axis; of equal values the first counts as
    larger, as in arg-max."""

    def score(outputs: Outputs, labels: Sequence[np.ndarray]) -> float:
        scores, wanted = _rows(outputs, labels)
        if scores.shape[1] <= int(wanted.max(initial=0)):
            raise DataError(f"label {int(wanted.max())} is beyond the {scores.shape[1]} classes of the first output")
        if wanted.min(initial=0) < 0 or (wanted != np.floor(wanted)).any():
            raise DataError("labels of classes are whole numbers from 0 on")
        column = wanted.astype(np.int64)[:, None]
        own = np.take_along_axis(scores, column, axis=1)
        ahead = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < column))
        sound = ~np.isnan(scores).any(axis=1)
        return float(((ahead.sum(axis=1) < k) & sound).mean())

    return score


def _paired(outputs: Outputs, labels: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    y = np.concatenate([np.ravel(o[0]).astype(np.float64) for o in outputs])
    t = np.concatenate([np.ravel(label).astype(np.float64) for label in labels])
    if y.shape != t.shape:
        raise DataError(f"the first output has {y.size} values over all feeds, the labels have {t.size}")
    return y, t


def mse(outputs: Outputs, labels: Sequence[np.ndarray]) -> float:
    """Mean squared error of the first output."""
    y, t = _paired(outputs, labels)
    return float(((y - t) ** 2).mean())


def psnr(outputs: Outputs, labels: Sequence[np.ndarray]) -> float:
    """Peak signal-to-noise ratio in dB, with the labels' range as the peak."""
    y, t = _paired(outputs, labels)
    peak, error = float(np.ptp(t)) or 1.0, float(((y - t) ** 2).mean())
    return float(10 * np.log10(peak**2 / error)) if error else float("inf")


def spearman(outputs: Outputs, labels: Sequence[np.ndarray]) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN where one side has a single value only."""
    y, t = (_ranks(v) for v in _paired(outputs, labels))
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(y, t)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2.0)[inverse])


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("top1", top_k(1), share=True),
        Metric("top5", top_k(5), share=True),
        Metric("mse", mse, higher_is_better=False),
        Metric("psnr", psnr),
        Metric("spearman", spearman),
    )
}


def find_metric(text: str) -> Metric:
    """A metric by name, or `py:FILE.py:FUNC`: a function (outputs, labels) -> float, with an optional attribute
    `higher_is_better`.

    Raises:
        UsageError: No such metric.
    """
    if text.startswith("py:"):
        function = load_function(text[3:])
        # Reports show the name; folders are the user's business.
        return Metric(f"py:{os.path.basename(text)}", function, bool(getattr(function, "higher_is_better", True)))
    if text in METRICS:
        return METRICS[text]
    raise UsageError(
        f"unknown metric {text!r}",
        hint=meant(text, METRICS) or f"one of {', '.join(METRICS)}, or py:FILE.py:FUNC",
    )
