"""What the model's outputs lose when channels of one cell alone go: measured, without labels.

The candidate is the model with the first k channels of the cell's order masked in the weights of its readers, and those
weights solved anew on the second moments. Errors add up over the cells as long as they are small, so their sum guides
how many channels to take where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.gram import Moments
from onnxcomp.calibration.readers import Reader
from onnxcomp.evaluate.sensitivity import Memory, Sensitivity
from onnxcomp.model.normalize import clone
from onnxcomp.ops.linear import LinearView, store
from onnxcomp.passes.prune.obs import RIDGE, CellUses, ObserveOptions, Progress, Removal, Use, observed_cells
from onnxcomp.refit.solve import resolved
from onnxcomp.runtime.session import SessionConfig

Array = np.ndarray

FRACTIONS = (0.125, 0.25, 0.5, 0.75, 0.875)
"""Shares of a cell's channels that are taken away to measure."""


def observe_sensitivity(
    model: ir.Model,
    cells: Sequence[CellUses],
    reader: Reader,
    config: SessionConfig,
    options: ObserveOptions | None = None,
    *,
    reference: ir.Model | None = None,
    feeds: int = 128,
    memory: Memory | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Removal], dict[str, list[float]]]:
    """The order of removal of each cell, and the errors of the outputs at `FRACTIONS`; see `curve`.

    Args:
        model: Canonical; not changed.
        cells: Cells and their readers.
        reader: Feeds; no labels.
        config: Sessions to run in.
        reference: Whose outputs are right; by default the model's own. With another one, what `model` loses already
            is taken off the errors.
        feeds: How many feeds to measure on.
        memory: Errors that were measured before; each cell's are stored as soon as they are known.
        progress: (cells done, cells in all).

    Returns:
        By name of the cell: its order, and Σ‖y − ŷ‖² / Σ‖y − mean‖² (mean over the outputs) for each of `FRACTIONS`.
    """
    judge = Sensitivity(model, reader, config, feeds, reference=reference)
    removals: dict[str, Removal] = {}
    errors: dict[str, list[float]] = {}
    for cell, removal, moments in observed_cells(model, cells, reader, config, options or ObserveOptions()):
        removals[cell.name] = removal
        order = removal.order.tolist()
        known = memory.get(order, len(FRACTIONS)) if memory is not None else None
        if known is None:
            known = []
            for fraction in FRACTIONS:
                gone = removal.order[: int(cell.size * fraction)]
                known.append(judge.error(without(model, cell.uses, gone, moments)) if len(gone) else 0.0)
            if memory is not None:
                memory.put(order, known)
        errors[cell.name] = known
        if progress:
            progress(len(removals), len(cells))
    return removals, errors


def curve(removal: Removal, errors: Sequence[float]) -> Array:
    """The error after the first k channels are gone, for every k: float64 [size + 1], never falling.

    Between two measured points it follows the loss of the readers' outputs, which is known for every k.
    """
    size = len(removal.order)
    counts = [0, *(int(size * fraction) for fraction in FRACTIONS)]
    points = np.maximum.accumulate([0.0, *errors])
    at = removal.loss[counts]
    # Beyond the last point the error goes on in proportion to the loss.
    end = points[-1] * removal.loss[size] / at[-1] if at[-1] > 0 else points[-1]
    order = np.argsort(at, kind="stable")
    inside = np.interp(removal.loss, [*at[order], removal.loss[size]], [*points[order], max(end, points[-1])])
    return np.asarray(np.maximum.accumulate(inside))


def without(model: ir.Model, uses: Sequence[Use], gone: Array, moments: Mapping[str, Moments]) -> ir.Model:
    """A copy in which the readers of a cell don't read the classes `gone`, their weights solved anew."""
    result = clone(model)
    nodes = {node.name: node for node in result.graph}
    for use in uses:
        view = LinearView.of(nodes[use.node])
        if view is None:
            continue
        weights, seen = view.matrix(), moments[use.node]
        groups, _, columns = weights.shape
        kept = np.repeat(~np.isin(use.class_of, gone), groups * columns // len(use.class_of)).reshape(groups, columns)
        dense = seen.xx.ndim == 3
        solved = [
            resolved(weights[g], seen.xx[g], kept[g], RIDGE) if dense else weights[g] * kept[g] for g in range(groups)
        ]
        new, bias = np.stack(solved), view.offset()
        if view.can_bias:
            shift = np.einsum("god,gd->go", weights - new, seen.mean_x).reshape(-1)
            bias = shift if bias is None else bias + shift
        store(view, view.with_matrix(new, bias))
    return result
