"""What the model's outputs lose when one weight alone is of a lower rank: measured, without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.readers import Reader
from onnxcomp.evaluate.sensitivity import Memory, Sensitivity, affordable_feeds
from onnxcomp.ops.linear import Array
from onnxcomp.passes.factorize.rewrite import Factors, merged
from onnxcomp.passes.factorize.sites import Site
from onnxcomp.passes.factorize.spectrum import Spectrum
from onnxcomp.runtime.cache import Json
from onnxcomp.runtime.session import SessionConfig

LOST = (0.02, 0.08, 0.3)
"""Shares of a layer's energy that are taken away to measure, about."""

MOST_FEEDS = 256
"""Feeds to measure on: with 64, what seems to cost least is chance."""

Progress = Callable[[int, int | None], None]


def measured_losses(
    model: ir.Model,
    sites: Sequence[Site],
    spectra: Mapping[str, Spectrum],
    reader: Reader,
    config: SessionConfig,
    macs: int,
    *,
    progress: Progress | None = None,
) -> dict[str, Array]:
    """For each site the loss at rank 0, 1, …, k: Σ‖y − ŷ‖² / Σ‖y − mean‖² of the outputs, the mean over them.

    Between two measured points it follows the energy that is lost, which is known for every rank. Errors of several
    layers add up as long as they are small.

    Args:
        macs: Of one call; decides on how many feeds is measured.
        progress: (sites done, sites in all).
    """
    feeds = affordable_feeds(macs, len(sites) * len(LOST), MOST_FEEDS)
    judge = Sensitivity(model, reader, config, feeds)
    memory = Memory.of("factorize_sensitivity", model, reader, feeds)
    result = {}
    for done, site in enumerate(sites):
        found = spectra[site.name]
        lost = 1.0 - found.energies
        ranks = _probes(lost)
        change: Json = [site.weight, [round(float(s), 6) for s in found.shares[: ranks[-1]]], ranks]
        errors = memory.get(change, len(ranks))
        if errors is None:
            errors = [judge.error(_lowered(model, site, found, rank)) for rank in ranks]
            memory.put(change, errors)
        result[site.name] = curve(lost, ranks, errors)
        if progress:
            progress(done + 1, len(sites))
    return result


def _lowered(model: ir.Model, site: Site, found: Spectrum, rank: int) -> ir.Model:
    """The model with one weight of a lower rank; what it took to make is gone when it runs."""
    made = Factors("channels", *found.factors(site.views[0].matrix(), rank))
    return merged(model, {site.name: site}, {site.name: made})


def _probes(lost: Array) -> list[int]:
    """Ranks, descending, that lose about the shares of `LOST`; none twice, none of rank 0 or of the whole."""
    ranks = {int(np.argmax(lost <= share)) for share in LOST}
    return sorted({min(max(rank, 1), max(len(lost) - 2, 1)) for rank in ranks}, reverse=True)


def curve(lost: Array, ranks: Sequence[int], errors: Sequence[float]) -> Array:
    """The loss at every rank, never rising with it.

    Args:
        lost: float64 [k + 1], share of the energy that is lost at rank 0, 1, …
        ranks: That were measured, descending; `errors`: what they lost.
    """
    at = np.concatenate([[0.0], lost[list(ranks)]])
    points = np.maximum.accumulate([0.0, *errors])
    order = np.argsort(at, kind="stable")
    # Beyond the last point the error goes on in proportion to the energy.
    end = points[-1] * lost[0] / at[-1] if at[-1] > 0 else points[-1]
    inside = np.interp(lost, [*at[order], lost[0]], [*points[order], max(end, points[-1])])
    return np.asarray(np.maximum.accumulate(inside[::-1])[::-1])
