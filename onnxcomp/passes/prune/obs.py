"""Which channels to remove first: greedy block OBS (optimal brain surgeon) on second moments of the activations.

Removing the columns p of a layer y = W·x and solving the rest anew costs L_p = tr(W_p·([H⁻¹]_pp)⁻¹·W_pᵀ), H = E[x·xᵀ];
then W ← W − W_p·([H⁻¹]_pp)⁻¹·[H⁻¹]_p: and H⁻¹ ← H⁻¹ − [H⁻¹]_:p·([H⁻¹]_pp)⁻¹·[H⁻¹]_p:, so that each further removal is
counted after the best re-solve for all before it. Hassibi, Stork 1993; in blocks: Meng et al. 2024 (OSSCAR).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.gram import Moments
from onnxcomp.calibration.readers import Reader
from onnxcomp.calibration.second_moments import Wanted, gather
from onnxcomp.ops.linear import LinearView
from onnxcomp.refit.solve import damped
from onnxcomp.runtime.session import SessionConfig

Array = np.ndarray
Progress = Callable[[int, int | None], None]

RIDGE = 1e-4
"""λ as a share of the mean diagonal of H: keeps H invertible where channels are equal."""


STEPS = 64
"""Of more classes than that several go at once, one part in so many of those that are left: each step passes over all
of H⁻¹."""

COMPACT = 0.125
"""Share of the columns that may be gone before the matrices are made smaller."""


@dataclass(frozen=True)
class Use:
    """A node that reads the channels of a cell.

    Args:
        node: Name of a node with a `LinearView`.
        class_of: int [input channels], the class of each channel; −1: not of this cell.
    """

    node: str
    class_of: Array


@dataclass(frozen=True)
class CellUses:
    """A cell of `size` classes, by name, and the nodes that read it."""

    name: str
    size: int
    uses: tuple[Use, ...]


@dataclass(frozen=True)
class Removal:
    """The order in which the classes of a cell go.

    Args:
        order: int [size]; the first one goes first.
        loss: float64 [size + 1]; error of the readers' outputs after the first k are gone and the rest is solved
            anew, relative to the outputs' variance (energy, where no bias can take the mean), mean over the readers.
    """

    order: Array
    loss: Array

    def kept(self, count: int) -> Array:
        """int [count], ascending: the classes that stay when `count` do."""
        return np.sort(self.order[len(self.order) - count :])


def removal_order(uses: Sequence[tuple[Array, Array, Array]], size: int, ridge: float = RIDGE) -> Removal:
    """Greedy removal of all classes; of equals the one with the smaller number goes first.

    Args:
        uses: For each reader W [groups, out/groups, columns]; H [groups, columns, columns], or its diagonal
            [groups, columns] where it is too large: then each channel is taken as independent of the others; and the
            class of each input channel, int [groups · channels of a group].
        size: Classes of the cell.
        ridge: λ as a share of the mean diagonal.
    """
    blocks = [block for use in uses for block in _blocks(*use, ridge)]
    total = max(len(uses), 1)
    order, loss, left = np.zeros(size, np.int64), np.zeros(size + 1), np.ones(size, bool)
    step = 0
    while step < size:
        cost = np.zeros(size)
        for block in blocks:
            block.add_costs(cost)
        cost[~left] = np.inf
        going = _cheapest(cost, max(1, (size - step) // STEPS))
        left[going] = False
        together = sum(block.remove(going) for block in blocks) / total
        # Several that go at once cost more than the sum of each alone: what they cost together is shared out.
        each = np.maximum(cost[going], 0.0)
        shares = np.cumsum(each) / each.sum() if each.sum() > 0 else np.linspace(0, 1, len(going) + 1)[1:]
        order[step : step + len(going)] = going
        loss[step + 1 : step + 1 + len(going)] = loss[step] + max(together, 0.0) * shares
        step += len(going)
    return Removal(order, np.minimum(loss, 1.0))


def _cheapest(cost: Array, count: int) -> Array:
    """The classes that cost least, cheapest first."""
    if count > 1:
        return np.argsort(cost, kind="stable")[:count]
    # Equal up to rounding is equal: the order must not hang on the last bit of a sum.
    return np.flatnonzero(cost <= cost.min() * (1 + 1e-9) + 1e-15)[:1]


def _blocks(weights: Array, second: Array, class_of: Array, ridge: float) -> Iterator[_Dense | _Diagonal]:
    """One problem for each group of a reader, with its costs relative to the reader's whole output."""
    groups, _, columns = weights.shape
    dense = second.ndim == 3
    h = damped(second, ridge) if dense else second
    energy = (
        np.einsum("god,gde,goe->", weights, h, weights, optimize=True) if dense else (weights**2 * h[:, None]).sum()
    )
    taps = groups * columns // len(class_of)
    classes = np.repeat(class_of, taps).reshape(groups, columns)
    for g in range(groups):
        if (classes[g] >= 0).any() and energy > 0:
            kind = _Dense if dense else _Diagonal
            yield kind(weights[g] / np.sqrt(energy), h[g], classes[g])


class _Dense:
    """W and H⁻¹ of one group, downdated as classes go; classes with equally many columns are handled together."""

    def __init__(self, weights: Array, h: Array, classes: Array) -> None:
        # tr(W_p A W_pᵀ) depends on WᵀW only: a triangular factor stands for many outputs.
        tall = weights.shape[0] > weights.shape[1]
        self._w: Array = np.asarray(np.linalg.qr(weights, mode="r")) if tall else weights.copy()
        self._inverse = np.linalg.inv(h)
        self._columns = {int(c): np.flatnonzero(classes == c) for c in np.unique(classes[classes >= 0])}
        self._gone = np.zeros(len(classes), bool)

    def add_costs(self, cost: Array) -> None:
        sizes: dict[int, list[int]] = {}
        for c, columns in self._columns.items():
            sizes.setdefault(len(columns), []).append(c)
        for members in sizes.values():
            index = np.stack([self._columns[c] for c in members])  # [classes, columns of each]
            w = np.moveaxis(self._w[:, index], 0, 1)  # [classes, out, columns]
            h = np.linalg.inv(self._inverse[index[:, :, None], index[:, None, :]])
            # tr(W·A·Wᵀ) = Σ A∘(WᵀW): small matrices, however many outputs there are.
            np.add.at(cost, members, ((np.swapaxes(w, 1, 2) @ w) * h).sum(axis=(1, 2)))

    def remove(self, going: Array) -> float:
        """Takes the classes away; gives what that costs."""
        parts = [self._columns.pop(int(c)) for c in going if int(c) in self._columns]
        if not parts:
            return 0.0
        columns = np.concatenate(parts)
        rows = np.linalg.solve(self._inverse[np.ix_(columns, columns)], self._inverse[columns])
        gone = self._w[:, columns]
        cost = float((gone * np.linalg.solve(self._inverse[np.ix_(columns, columns)], gone.T).T).sum())
        self._w -= gone @ rows
        self._inverse -= self._inverse[:, columns] @ rows
        # Only what is left is of use: exact zeros there keep rounding from growing, a unit diagonal keeps it regular.
        self._inverse[columns] = self._inverse[:, columns] = self._w[:, columns] = 0.0
        self._inverse[columns, columns] = 1.0
        self._gone[columns] = True
        if self._gone.mean() > COMPACT:
            self._compact()
        return cost

    def _compact(self) -> None:
        """Drops the columns that are gone, so that what follows has less to do."""
        live = np.flatnonzero(~self._gone)
        place = np.cumsum(~self._gone) - 1
        self._w, self._inverse = self._w[:, live], self._inverse[np.ix_(live, live)]
        self._columns = {c: place[columns] for c, columns in self._columns.items()}
        self._gone = np.zeros(len(live), bool)


class _Diagonal:
    """Channels taken as independent: Var(x_c)·‖W_c‖², and nothing changes as others go."""

    def __init__(self, weights: Array, h: Array, classes: Array) -> None:
        self._classes, self._costs = classes, (weights**2).sum(axis=0) * h

    def add_costs(self, cost: Array) -> None:
        inside = self._classes >= 0
        np.add.at(cost, self._classes[inside], self._costs[inside])

    def remove(self, going: Array) -> float:
        """Takes the classes away; gives what that costs."""
        gone = np.isin(self._classes, going)
        cost = float(self._costs[gone].sum())
        self._costs[gone] = 0.0
        return cost


@dataclass(frozen=True)
class ObserveOptions:
    """How second moments are gathered.

    Args:
        memory: Bytes of second moments held at a time; more takes further passes over the feeds.
        largest: Most columns of one group; above it only the diagonal is kept.
        rows_per_column: Rows for each column, and never fewer than `rows`.
        seed: Of the choice of rows.
    """

    memory: int = 1 << 30
    largest: int = 4608
    rows_per_column: int = 40
    rows: int = 10_000
    seed: int = 0


def observe_uses(
    model: ir.Model,
    cells: Sequence[CellUses],
    reader: Reader,
    config: SessionConfig,
    options: ObserveOptions | None = None,
    *,
    progress: Progress | None = None,
) -> dict[str, Removal]:
    """The order of removal of each cell, by its name. A cell that no linear node reads gets loss 0, in its own order.

    Args:
        model: Canonical; not changed.
        cells: Cells and their readers.
        reader: Feeds; no labels.
        config: Sessions to run in.
        progress: (cells done, cells in all).
    """
    result: dict[str, Removal] = {}
    for cell, removal, _ in observed_cells(model, cells, reader, config, options or ObserveOptions()):
        result[cell.name] = removal
        if progress:
            progress(len(result), len(cells))
    return result


def observed_cells(
    model: ir.Model, cells: Sequence[CellUses], reader: Reader, config: SessionConfig, options: ObserveOptions
) -> Iterator[tuple[CellUses, Removal, Mapping[str, Moments]]]:
    """Each cell with its order and with the moments of what its readers read, which the next pass forgets."""
    views = {n.name: v for n in model.graph if (v := LinearView.of(n)) is not None}
    for part in _passes(cells, views, options):
        names = list(dict.fromkeys(u.node for cell in part for u in cell.uses if u.node in views))
        seconds = second_moments(model, [views[n] for n in names], reader, config, options) if names else {}
        for cell in part:
            uses = [u for u in cell.uses if u.node in views]
            readers = [(views[u.node].matrix(), seconds[u.node].xx, u.class_of) for u in uses]
            yield cell, removal_order(readers, cell.size), seconds


def _passes(
    cells: Sequence[CellUses], views: Mapping[str | None, LinearView], options: ObserveOptions
) -> Iterator[list[CellUses]]:
    """Cells whose readers' moments fit into memory together; one cell at least."""
    part: list[CellUses] = []
    known: set[str] = set()
    held = 0
    for cell in cells:
        new = {u.node for u in cell.uses if u.node in views} - known
        size = sum(_bytes(views[n], options) for n in new)
        if part and held + size > options.memory:
            yield part
            part, known, held = [], set(), 0
            new = {u.node for u in cell.uses if u.node in views}
            size = sum(_bytes(views[n], options) for n in new)
        part.append(cell)
        known |= new
        held += size
    if part:
        yield part


def _bytes(view: LinearView, options: ObserveOptions) -> int:
    groups, _, columns = view.shape
    return 8 * groups * columns * (columns if columns <= options.largest else 1)


def second_moments(
    model: ir.Model, views: Sequence[LinearView], reader: Reader, config: SessionConfig, options: ObserveOptions
) -> dict[str, Moments]:
    """Moments of the rows that each node reads, by its name; above `largest` xx is the diagonal [groups, columns].

    About the mean where a bias can take up the mean of what is removed; about zero otherwise.
    """
    wanted = {
        view.node.name or "": Wanted(
            (view,),
            "inputs",
            rows=max(options.rows, options.rows_per_column * view.shape[2]),
            diagonal=view.shape[2] > options.largest,
        )
        for view in views
    }
    grams = gather(model, wanted, reader, config, seed=options.seed)
    found = {}
    for view in views:
        name = view.node.name or ""
        found[name] = grams[name].moments(centred=view.can_bias)
        groups, _, columns = view.shape
        if columns > options.largest:
            mean, xx = (a.reshape(groups, columns) for a in (found[name].mean_x, found[name].xx))
            found[name] = replace(found[name], mean_x=mean, xx=xx)
    return found
