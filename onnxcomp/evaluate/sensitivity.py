"""What the outputs of a model lose when one unit of it is changed: measured without labels, and remembered on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.lockstep import MOST_ROWS, by_shape, can_join, joined
from onnxcomp.calibration.readers import Reader
from onnxcomp.model.fingerprint import structure_sha256
from onnxcomp.runtime.cache import Cache, Json
from onnxcomp.runtime.session import SessionConfig, open_session

Array = np.ndarray

FEWEST = 4
"""Feeds that a sensitivity is measured on, at least."""

MOST_WORK = 2e12
"""Multiply-accumulates that measuring all sensitivities may cost: about a minute on two cores."""


class Sensitivity:
    """The original's outputs on a few feeds, against which changed models are held.

    Args:
        model: The original.
        reader: Feeds; the first `feeds` of them are used.
        config: Sessions to run in.
        reference: Whose outputs are right; by default the model's own. With another one, what `model` loses already is
            taken off the errors.
    """

    def __init__(
        self, model: ir.Model, reader: Reader, config: SessionConfig, feeds: int, *, reference: ir.Model | None = None
    ) -> None:
        self._config = config
        alike = by_shape(islice(iter(reader), feeds))
        self._batches = list(joined(alike, MOST_ROWS if can_join(model) else 1))
        self._right = self._outputs(reference or model)
        self._lost = 0.0 if reference is None else self._error(model)

    def error(self, candidate: ir.Model) -> float:
        """Σ‖y − ŷ‖² / Σ‖y − mean‖², the mean over the outputs; see `relative_error`."""
        return max(self._error(candidate) - self._lost, 0.0)

    def _error(self, candidate: ir.Model) -> float:
        return relative_error(self._right, self._outputs(candidate))

    def _outputs(self, model: ir.Model) -> list[list[Array]]:
        with open_session(model, self._config) as session:
            return [session.run(feed) for feed in self._batches]


def affordable_feeds(macs: int, trials: int, most: int) -> int:
    """How many feeds to measure on: what the work allows, not what the clock says.

    Args:
        macs: Of one call; `trials`: changed models that will be run; `most`: feeds that are of use.
    """
    return int(np.clip(MOST_WORK / max(1, macs * trials), FEWEST, most))


@dataclass(frozen=True)
class Memory:
    """Errors on disk, by model, feeds and what was changed: a job that was interrupted goes on where it was.

    Args:
        cache: Where they lie; `kind`: of entry.
        subject: What was measured.
    """

    cache: Cache
    kind: str
    subject: Json

    @classmethod
    def of(cls, kind: str, model: ir.Model, reader: Reader, feeds: int) -> Memory:
        """The memory of this user for a model (graph and weights) and its feeds."""
        digest = hashlib.sha256(structure_sha256(model).encode())
        for name, value in sorted(model.graph.initializers.items()):
            if value.const_value is not None:
                digest.update(name.encode())
                digest.update(value.const_value.tobytes())
        used = reader.part(0, feeds)
        subject: Json = {"model": digest.hexdigest(), "feeds": used.fingerprint(), "count": feeds, "method": 1}
        return cls(Cache.default(), kind, subject)

    def get(self, change: Json, count: int) -> list[float] | None:
        """The `count` errors of a change, if they are known."""
        found = self.cache.get(self.kind, self._key(change))
        if isinstance(found, list) and len(found) == count and all(isinstance(f, int | float) for f in found):
            return [float(f) for f in found if isinstance(f, int | float)]
        return None

    def put(self, change: Json, errors: Sequence[float]) -> None:
        if np.isfinite(errors).all():
            self.cache.put(self.kind, self._key(change), list(errors))

    def _key(self, change: Json) -> Json:
        return {"subject": self.subject, "change": change}


def relative_error(wanted: Sequence[Sequence[Array]], given: Sequence[Sequence[Array]]) -> float:
    """Σ‖y − ŷ‖² / Σ‖y − mean(y)‖² of each floating-point output, averaged over the outputs.

    The mean is over axis 0 and all batches, for outputs of one shape; of others the mean of all values.

    Args:
        wanted: Outputs of each batch; `given` likewise. An output that changed its shape counts as lost.
    """
    shares = []
    for ys, zs in zip(zip(*wanted, strict=True), zip(*given, strict=True), strict=True):
        if not all(isinstance(y, np.ndarray) and np.issubdtype(y.dtype, np.floating) for y in ys):
            continue
        variance, noise, total = _variance([y.astype(np.float64) for y in ys]), 0.0, 0
        for y, z in zip(ys, zs, strict=True):
            noise += float(((y.astype(np.float64) - z) ** 2).sum()) if y.shape == z.shape else variance * y.size
            total += y.size
        if variance > 0:
            shares.append(noise / (variance * total))
    return float(np.mean(shares)) if shares else 0.0


def _variance(ys: list[Array]) -> float:
    """Mean squared deviation from the mean over samples, or from that of all values where there is one sample."""
    alike = len({y.shape[1:] for y in ys}) == 1 and ys[0].ndim > 0 and sum(len(y) for y in ys) > 1
    rows = np.concatenate([y if alike else y.reshape(-1) for y in ys])
    return float(((rows - rows.mean(axis=0)) ** 2).mean())
