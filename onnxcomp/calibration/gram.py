"""Second moments of rows in bounded memory: what least squares needs of its data, and nothing more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CHUNK = 8192
"""Rows of one float32 product; the sums over chunks are kept in float64."""

FEWEST_ROWS, HELD_BYTES = 1024, 1 << 24
"""Rows are held until there are so many: one product of many rows costs much less than many of few."""


@dataclass
class Gram:
    """Count, means and second moments of rows x and, where given, targets y, for each group apart.

    Sums are taken around the mean of the first rows, so that a mean much larger than the deviations costs no digits.

    Args:
        groups: Independent problems side by side.
        columns: Of one row in one group.
        targets: Of one row in one group; 0 for moments of rows alone.
    """

    groups: int
    columns: int
    targets: int = 0

    def __post_init__(self) -> None:
        g, d, o = self.groups, self.columns, self.targets
        self.count = 0
        self._held: list[tuple[np.ndarray, np.ndarray | None]] = []
        self._origin_x, self._origin_y = np.zeros((g, d)), np.zeros((g, o))
        self._x, self._y = np.zeros((g, d)), np.zeros((g, o))
        self._xx, self._yx, self._yy = np.zeros((g, d, d)), np.zeros((g, o, d)), np.zeros((g, o))

    @property
    def mean_x(self) -> np.ndarray:
        """float64 [groups, columns]."""
        self._flush()
        return self._origin_x + self._x / max(self.count, 1)

    @property
    def mean_y(self) -> np.ndarray:
        """float64 [groups, targets]."""
        self._flush()
        return self._origin_y + self._y / max(self.count, 1)

    def add(self, x: np.ndarray, y: np.ndarray | None = None) -> None:
        """Adds rows [n, groups, columns] with their targets [n, groups, targets]."""
        if not len(x):
            return
        self.count += len(x)
        self._held.append((x, y))
        rows = sum(len(held) for held, _ in self._held)
        if rows >= FEWEST_ROWS or sum(held.nbytes for held, _ in self._held) >= HELD_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Adds the rows that were held to the sums."""
        if not self._held:
            return
        x = np.concatenate([x for x, _ in self._held])
        ys = [y for _, y in self._held if y is not None]
        y = np.concatenate(ys) if ys else None
        self._held.clear()
        if self.count == len(x):
            self._origin_x = x[:CHUNK].mean(axis=0, dtype=np.float64)
            if y is not None:
                self._origin_y = y[:CHUNK].mean(axis=0, dtype=np.float64)
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            self._add(x[part], None if y is None else y[part])

    def _add(self, x: np.ndarray, y: np.ndarray | None) -> None:
        kind = np.float64 if x.dtype == np.float64 else np.float32
        rows = np.moveaxis(np.subtract(x, self._origin_x.astype(kind), dtype=kind), 0, 1)  # [groups, n, columns]
        self._x += rows.sum(axis=1, dtype=np.float64)
        self._xx += np.swapaxes(rows, 1, 2) @ rows
        if y is not None:
            deviations = np.moveaxis(np.subtract(y, self._origin_y.astype(kind), dtype=kind), 0, 1)
            self._y += deviations.sum(axis=1, dtype=np.float64)
            self._yx += np.swapaxes(deviations, 1, 2) @ rows
            self._yy += np.einsum("gno,gno->go", deviations, deviations, dtype=np.float64)

    def merge(self, other: Gram) -> None:
        """Adds what another one has seen."""
        if not other.count:
            return
        self._flush()
        other._flush()
        if not self.count:
            self._origin_x, self._origin_y = other._origin_x, other._origin_y
        dx, dy, n = other._origin_x - self._origin_x, other._origin_y - self._origin_y, other.count
        # Σ(u + δ)(v + ε)ᵀ = Σuvᵀ + Σu·εᵀ + δ·Σvᵀ + n·δεᵀ
        self._xx += other._xx + _outer(other._x, dx) + _outer(dx, other._x) + n * _outer(dx, dx)
        self._yx += other._yx + _outer(other._y, dx) + _outer(dy, other._x) + n * _outer(dy, dx)
        self._yy += other._yy + 2 * other._y * dy + n * dy * dy
        self._x += other._x + n * dx
        self._y += other._y + n * dy
        self.count += n

    def moments(self, *, centred: bool) -> Moments:
        """Means of the products: about the means (for a fit with a bias), or about zero (without one)."""
        self._flush()
        n = max(self.count, 1)
        mx, my = self._x / n, self._y / n
        xx, yx, yy = self._xx / n - _outer(mx, mx), self._yx / n - _outer(my, mx), self._yy / n - my * my
        if not centred:
            ax, ay = self.mean_x, self.mean_y
            xx, yx, yy = xx + _outer(ax, ax), yx + _outer(ay, ax), yy + ay * ay
        return Moments(self.count, self.mean_x, self.mean_y, xx, yx, yy, centred)


@dataclass(frozen=True)
class Moments:
    """Second moments over `count` rows; each group is a problem of its own.

    Args:
        mean_x: float64 [groups, columns]; `mean_y`: [groups, targets].
        xx: E[x·xᵀ] [groups, columns, columns]; `yx`: E[y·xᵀ] [groups, targets, columns]; `yy`: E[y²].
        centred: Taken about the means.
    """

    count: int
    mean_x: np.ndarray
    mean_y: np.ndarray
    xx: np.ndarray
    yx: np.ndarray
    yy: np.ndarray
    centred: bool


def _outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[groups, m], [groups, n] -> [groups, m, n]."""
    return np.asarray(a[:, :, None] * b[:, None, :])
