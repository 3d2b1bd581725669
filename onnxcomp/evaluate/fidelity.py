"""Label-free closeness of a model's outputs to the original's, streamed over the evaluation feeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite, log10
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import is_standard
from onnxcomp.report.structures import OutputFidelity

MAX_CLASSES = 22_000
"""ImageNet-21k has 21,841; longer rows are vocabularies or flattened maps."""

SMALLEST_PROBABILITY = 1e-12

SCORING = frozenset({"Gemm", "MatMul", "Softmax", "LogSoftmax"})
LOOKED_THROUGH = frozenset({"Add", "Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


@dataclass
class Comparison:
    """Accumulates one output over the feeds; `result` gives the figures. Everything is summed in float64.

    Outputs that are not floating-point have no cosine: the share of equal elements stands in its place. A feed whose
    output changed its shape (another number of detections) or turned non-finite counts with cosine 0, and the SQNR is
    then −∞.

    Args:
        output: Its name.
        scores: Its rows are scores of classes, as far as the graph tells (`score_outputs`); rows of probabilities are
            known by themselves.
    """

    output: str
    scores: bool = False
    cosines: list[float] = field(default_factory=list)
    signal: float = 0.0
    noise: float = 0.0
    max_abs: float = 0.0
    agreed: int = 0
    rows: int = 0
    divergence: float = 0.0
    classes: bool | None = None

    def add(self, reference: Any, candidate: Any) -> None:
        """Adds one feed: arrays, or the lists and dicts that sequences and maps arrive as."""
        y, z = _as_array(reference), _as_array(candidate)
        if y.shape != z.shape:
            self._broken()
        elif np.issubdtype(y.dtype, np.floating):
            self._add_floats(y, z)
        else:
            self.cosines.append(float(np.mean(y == z)) if y.size else 1.0)

    def _add_floats(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        y, z = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
        finite = np.isfinite(y)
        if not np.array_equal(y[~finite], z[~finite], equal_nan=True) or not np.isfinite(z[finite]).all():
            self._broken()
            return
        self._add_classes(reference, candidate, bool(finite.all()))
        y, z = y[finite], z[finite]
        self.cosines.append(cosine(y, z))
        self.signal += float(y @ y)
        self.noise += float((y - z) @ (y - z))
        self.max_abs = max(self.max_abs, float(np.abs(y - z).max(initial=0.0)))

    def _add_classes(self, reference: np.ndarray, candidate: np.ndarray, finite: bool) -> None:
        looks = finite and looks_like_classes(reference, self.scores)
        self.classes = looks and self.classes is not False
        if self.classes:
            rows = (-1, reference.shape[-1])
            p, q = reference.reshape(rows).astype(np.float64), candidate.reshape(rows).astype(np.float64)
            self.agreed += int((p.argmax(axis=1) == q.argmax(axis=1)).sum())
            self.rows += len(p)
            self.divergence += divergence(p, q)

    def _broken(self) -> None:
        self.cosines.append(0.0)
        self.max_abs = self.noise = inf

    def result(self) -> OutputFidelity:
        with_classes = bool(self.classes) and self.rows > 0
        return OutputFidelity(
            output=self.output,
            cosine=float(np.mean(self.cosines)) if self.cosines else 1.0,
            sqnr_db=_decibels(self.signal, self.noise),
            max_abs=self.max_abs,
            kl=self.divergence / self.rows if with_classes else None,
            top1_agreement=self.agreed / self.rows if with_classes else None,
        )


def cosine(y: np.ndarray, z: np.ndarray) -> float:
    """y·z / (|y| |z|) of float64 vectors; 1 where both are zero, 0 where one is.

    >>> cosine(np.array([1.0, 0.0]), np.array([2.0, 0.0]))
    1.0
    """
    largest = float(np.abs(y).max(initial=0.0)), float(np.abs(z).max(initial=0.0))
    if 0.0 in largest:
        return float(largest == (0.0, 0.0))
    # Scaled, no square over- or underflows; one root of the product makes the cosine of equal vectors exactly 1.
    y, z = y / largest[0], z / largest[1]
    return float(np.clip((y @ z) / np.sqrt((y @ y) * (z @ z)), -1.0, 1.0))


def score_outputs(model: ir.Model) -> frozenset[str]:
    """Names of the outputs that a linear layer or a softmax computes: what may be scores of classes.

    A pooled or normalised embedding is none: its arg-max and its softmax mean nothing. One that a linear layer projects
    can't be told from logits, so "arg-max agreement" is what the figure is, and accuracy only where the model
    classifies.
    """
    return frozenset(v.name or "" for v in model.graph.outputs if _is_score(v))


def _is_score(value: ir.Value) -> bool:
    node = value.producer()
    while node is not None and is_standard(node) and node.op_type in LOOKED_THROUGH:
        # An Add is a bias: one operand is computed by a node, the other is a constant. A residual Add has two that are.
        producers = [v.producer() for v in node.inputs[: 2 if node.op_type == "Add" else 1] if v is not None]
        computed = [p for p in producers if p is not None and p.op_type != "Constant"]
        node = computed[0] if len(computed) == 1 else None
    return node is not None and is_standard(node) and node.op_type in SCORING


def looks_like_classes(array: np.ndarray, scores: bool = False) -> bool:
    """Whether the last axis holds classes: rows of probabilities of any rank, or a matrix of which `scores` is said."""
    if array.ndim < 2 or not 2 <= array.shape[-1] <= MAX_CLASSES or array.size == 0:
        return False
    return (scores and array.ndim == 2) or _are_probabilities(array.reshape(-1, array.shape[-1]))


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Σ over rows of KL(P ‖ Q); P: rows of `p` that are probabilities, else their softmax; Q: in the same way."""
    log_p, log_q = (_log_probabilities(rows, _are_probabilities(p)) for rows in (p, q))
    return float(np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=1), 0.0).sum())


def _are_probabilities(rows: np.ndarray) -> bool:
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1, dtype=np.float64), 1.0, atol=1e-3))


def _log_probabilities(rows: np.ndarray, probabilities: bool) -> np.ndarray:
    if probabilities:
        positive = np.maximum(rows, SMALLEST_PROBABILITY)
        return np.asarray(np.log(positive / positive.sum(axis=1, keepdims=True)))
    shifted = rows - rows.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def compare(
    outputs: Sequence[str], pairs: Sequence[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]]
) -> tuple[OutputFidelity, ...]:
    """The figures of all outputs over (reference, candidate) pairs of one feed each."""
    comparisons = [Comparison(name) for name in outputs]
    for reference, candidate in pairs:
        for comparison, y, z in zip(comparisons, reference, candidate, strict=True):
            comparison.add(y, z)
    return tuple(c.result() for c in comparisons)


def _decibels(signal: float, noise: float) -> float:
    if noise == 0.0:
        return inf
    return 10 * log10(signal / noise) if signal > 0 and isfinite(noise) else -inf


def _as_array(value: Any) -> np.ndarray:
    """An array as it is; a nested sequence or map as one vector of its values, objects where some are no numbers."""
    if isinstance(value, np.ndarray):
        return value
    leaves = [np.ravel(leaf) for leaf in _leaves(value)]
    if not leaves:
        return np.zeros(0)
    if all(leaf.dtype.kind in "fiub" for leaf in leaves):
        return np.concatenate([leaf.astype(np.float64) for leaf in leaves])
    return np.concatenate([leaf.astype(object) for leaf in leaves])


def _leaves(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _leaves(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield np.asarray(value)
