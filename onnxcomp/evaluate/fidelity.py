"""Label-free closeness of a model's outputs to the original's, streamed over the evaluation feeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, log10

import numpy as np

from onnxcomp.report.structures import OutputFidelity

MAX_CLASSES = 100_000


@dataclass
class Comparison:
    """Accumulates one output over the feeds; `result` gives the figures. Everything is summed in float64.

    Outputs that are not floating-point have no cosine: the share of equal elements stands in its place. A feed whose output changed its
    shape (another number of detections) or turned non-finite counts with cosine 0.
    """

    output: str
    cosines: list[float] = field(default_factory=list)
    signal: float = 0.0
    noise: float = 0.0
    max_abs: float = 0.0
    agreed: int = 0
    rows: int = 0
    divergence: float = 0.0
    classes: bool | None = None

    def add(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """Adds one feed."""
        if not isinstance(reference, np.ndarray) or not isinstance(candidate, np.ndarray) or reference.dtype == object:
            self.cosines.append(float(np.array_equal(np.asarray(reference, object), np.asarray(candidate, object))))
            return
        if reference.shape != candidate.shape:
            self.cosines.append(0.0)
            self.max_abs = inf
            return
        if not np.issubdtype(reference.dtype, np.floating):
            equal = reference == candidate
            self.cosines.append(float(equal.mean()) if equal.size else 1.0)
            return
        self._add_floats(reference, candidate)

    def _add_floats(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        y, z = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
        finite = np.isfinite(y)
        if not (np.isfinite(z) == finite).all() or not np.array_equal(y[~finite], z[~finite], equal_nan=True):
            self.cosines.append(0.0)
            self.max_abs = inf
            return
        y, z = y[finite], z[finite]
        self.cosines.append(cosine(y, z))
        self.signal += float(y @ y)
        self.noise += float((y - z) @ (y - z))
        self.max_abs = max(self.max_abs, float(np.abs(y - z).max(initial=0.0)))
        looks = looks_like_classes(reference)
        self.classes = looks if self.classes is None else self.classes and looks
        if looks and self.classes:
            rows = (-1, reference.shape[-1])
            p, q = reference.reshape(rows).astype(np.float64), candidate.reshape(rows).astype(np.float64)
            self.agreed += int((p.argmax(axis=1) == q.argmax(axis=1)).sum())
            self.rows += len(p)
            self.divergence += _divergence(p, q)

    def result(self) -> OutputFidelity:
        with_classes = bool(self.classes) and self.rows > 0
        return OutputFidelity(
            output=self.output,
            cosine=float(np.mean(self.cosines)) if self.cosines else 1.0,
            sqnr_db=inf if self.noise == 0 else (10 * log10(self.signal / self.noise) if self.signal > 0 else -inf),
            max_abs=self.max_abs,
            kl=self.divergence / self.rows if with_classes else None,
            top1_agreement=self.agreed / self.rows if with_classes else None,
        )


def cosine(y: np.ndarray, z: np.ndarray) -> float:
    """y·z / (|y| |z|); 1 where both are zero, 0 where one is.

    >>> cosine(np.array([1.0, 0.0]), np.array([2.0, 0.0]))
    1.0
    """
    lengths = float(np.sqrt((y @ y) * (z @ z)))
    if lengths == 0.0:
        return float(not y.any() and not z.any())
    return min(1.0, float(y @ z) / lengths)


def looks_like_classes(array: np.ndarray) -> bool:
    """Whether the last axis looks like classes: a matrix of logits, or rows of probabilities of any rank."""
    if array.ndim < 2 or not 2 <= array.shape[-1] <= MAX_CLASSES or array.size == 0:
        return False
    if array.ndim == 2:
        return True
    rows = array.reshape(-1, array.shape[-1])
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1.0, atol=1e-3))


def compare(
    outputs: Sequence[str], pairs: Sequence[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]]
) -> tuple[OutputFidelity, ...]:
    """The figures of all outputs over (reference, candidate) pairs of one feed each."""
    comparisons = [Comparison(name) for name in outputs]
    for reference, candidate in pairs:
        for comparison, y, z in zip(comparisons, reference, candidate, strict=True):
            comparison.add(y, z)
    return tuple(c.result() for c in comparisons)


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Σ over rows of KL(softmax p ‖ softmax q); rows that are probabilities already are taken as they are."""
    log_p, log_q = _log_probabilities(p), _log_probabilities(q)
    return float(max(0.0, (np.exp(log_p) * (log_p - log_q)).sum()))


def _log_probabilities(rows: np.ndarray) -> np.ndarray:
    if (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1.0, atol=1e-3):
        return np.log(np.maximum(rows, 1e-12))
    shifted = rows - rows.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))
