"""How much each class of channels matters, from the weights alone or with the spread of their activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.accumulators import Moments
from onnxcomp.ops.attributes import constant
from onnxcomp.passes.prune.analysis import Analysis

Importance = Literal["l1", "l2", "bn", "fpgm", "activation", "wanda", "obs"]
WITH_DATA: tuple[Importance, ...] = ("activation", "wanda", "obs")


@dataclass(frozen=True)
class Slices:
    """One axis of a weight, seen from a cell.

    Args:
        weight: The array.
        axis: The axis on which the cell lies.
        class_of: int [positions]: class of each position; −1: of another cell.
        node: Name of the node that holds the weight.
    """

    weight: np.ndarray
    axis: int
    class_of: np.ndarray
    node: str

    def total(self, values: np.ndarray, size: int) -> np.ndarray:
        """float64 [size]: `values` (one for each position) added up for each class."""
        inside = self.class_of >= 0
        return np.bincount(self.class_of[inside], values[inside], minlength=size)

    def rows(self) -> np.ndarray:
        """float64 [positions, elements of each]."""
        return np.moveaxis(self.weight, self.axis, 0).reshape(self.weight.shape[self.axis], -1).astype(np.float64)


def slices(analysis: Analysis, cell: int) -> tuple[list[Slices], list[Slices]]:
    """Where the weights hold the channels of a cell: as their outputs, and as their inputs."""
    made: list[Slices] = []
    read: list[Slices] = []
    structure = analysis.structure
    for place in analysis.places[cell]:
        array = constant(place.weight)
        held = structure.membership(structure.atoms.axes[place.weight][place.axis])
        if array is not None and array.dtype.kind == "f" and held is not None:
            class_of = np.where(held[0] == cell, held[1], -1)
            (read if place.contracted else made).append(Slices(array, place.axis, class_of, place.node))
    return made, read


def scores(
    model: ir.Model, analysis: Analysis, cell: int, importance: Importance, moments: Mapping[str, Moments]
) -> np.ndarray:
    """float64 [size]: the importance of each class; of 0 it can go without a trace.

    Args:
        moments: For "activation" and "wanda": moments of the channels that each node reads, by its name.
    """
    return SCORES[importance](model, analysis, cell, moments)


def _norm(power: int) -> Callable[..., np.ndarray]:
    """‖what makes the channel‖ · ‖what reads it‖: a channel that is never made or never read is worth nothing.

    Li et al. 2017 take the first factor alone; with the second, the scale that a layer hands to the next cancels.
    """

    def scored(model: ir.Model, analysis: Analysis, cell: int, moments: Mapping[str, Moments]) -> np.ndarray:
        made, read = slices(analysis, cell)
        size = analysis.structure.cells[cell].size
        result = np.ones(size)
        for side in (made, read):
            if side:
                result *= np.sum([s.total((np.abs(s.rows()) ** power).sum(axis=1), size) for s in side], axis=0)
        return np.asarray(result ** (1 / power))

    return scored


def _batch_norm(model: ir.Model, analysis: Analysis, cell: int, moments: Mapping[str, Moments]) -> np.ndarray:
    """Σ|γ| of the batch norms that the channels pass (Liu et al. 2017); L1 where there is none."""
    structure = analysis.structure
    size, total = structure.cells[cell].size, None
    for node in model.graph:
        value = node.inputs[1] if node.op_type == "BatchNormalization" else None
        gamma = constant(value)
        held = None if value is None else structure.membership(structure.atoms.axes.get(value, [None])[0])
        if gamma is not None and held is not None and (held[0] == cell).any():
            found = Slices(gamma, 0, np.where(held[0] == cell, held[1], -1), node.name or "")
            share = found.total(np.abs(gamma.astype(np.float64)), size)
            total = share if total is None else total + share
    return _norm(1)(model, analysis, cell, moments) if total is None else total


def _geometric_median(model: ir.Model, analysis: Analysis, cell: int, moments: Mapping[str, Moments]) -> np.ndarray:
    """Σⱼ‖Fᵢ − Fⱼ‖ over the filters of each maker: what lies in the middle can be replaced (FPGM: He et al. 2019)."""
    made, read = slices(analysis, cell)
    size = analysis.structure.cells[cell].size
    result = np.zeros(size)
    for s in made or read:
        inside = s.class_of >= 0
        rows = s.rows()[inside]
        squares = (rows**2).sum(axis=1)
        distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * rows @ rows.T, 0.0))
        spread = np.zeros(len(s.class_of))
        spread[inside] = distances.sum(axis=1)
        result += s.total(spread, size)
    return result


def _wanda(model: ir.Model, analysis: Analysis, cell: int, moments: Mapping[str, Moments]) -> np.ndarray:
    """Σ‖W[:, c]‖·RMS(x_c) over the readers (Sun et al. 2024)."""
    return _read(analysis, cell, moments, lambda norm, m: norm * np.sqrt(m.variance() + m.mean**2))


def _variance(model: ir.Model, analysis: Analysis, cell: int, moments: Mapping[str, Moments]) -> np.ndarray:
    """Σ‖W[:, c]‖²·Var(x_c) over the readers: what is lost when a bias takes the mean."""
    return _read(analysis, cell, moments, lambda norm, m: norm**2 * m.variance())


def _read(
    analysis: Analysis,
    cell: int,
    moments: Mapping[str, Moments],
    value: Callable[[np.ndarray, Moments], np.ndarray],
) -> np.ndarray:
    """Each reader's values, relative to their sum: readers count alike. Without readers: the L1 norm."""
    _, read = slices(analysis, cell)
    size, result, known = analysis.structure.cells[cell].size, None, False
    result = np.zeros(size)
    for s in read:
        m = moments.get(s.node)
        if m is not None and len(m.mean) == len(s.class_of):
            values = s.total(value(np.linalg.norm(s.rows(), axis=1), m), size)
            result += values / max(float(values.sum()), 1e-300)
            known = True
    return result if known else _norm(1)(None, analysis, cell, moments)


SCORES: dict[str, Callable[[ir.Model, Analysis, int, Mapping[str, Moments]], np.ndarray]] = {
    "l1": _norm(1),
    "l2": _norm(2),
    "bn": _batch_norm,
    "fpgm": _geometric_median,
    "activation": _variance,
    "wanda": _wanda,
}


def curve(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(order of removal, loss after each number of removals) from scores; losses in units of the cell's mean score.

    >>> order, loss = curve(np.array([3.0, 1.0])); order.tolist(), loss.tolist()
    ([1, 0], [0.0, 0.5, 2.0])
    """
    order = np.argsort(values, kind="stable")
    mean = float(values.mean())
    return order, np.concatenate([[0.0], np.cumsum(values[order]) / (mean if 0 < mean < np.inf else 1.0)])
