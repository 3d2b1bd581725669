"""Shared by the tests of the pruning engine: analysed models and random prunings of them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx_ir as ir
from graphs import feeds
from prune_topologies import TOPOLOGIES, feed_of

from onnxcomp.calibration.readers import Feed
from onnxcomp.model.normalize import clone, normalize
from onnxcomp.ops.targets import TARGETS
from onnxcomp.passes.base import Context
from onnxcomp.passes.prune.analysis import Analysis, analyse
from onnxcomp.passes.prune.rewrite import Kept
from onnxcomp.passes.simplify.simplify import Simplify, SimplifyConfig
from onnxcomp.runtime.session import SessionConfig

CONFIG = SessionConfig(threads=1)
Keep = dict[str, np.ndarray]


@lru_cache(maxsize=4)
def analysed(name: str) -> tuple[ir.Model, Analysis]:
    """A topology in the form that pruning gets it, and what is known of its channels."""
    model = normalize(TOPOLOGIES[name].build()).model
    fold = Simplify(SimplifyConfig(rules=("fold-constants", "remove-idle")))
    context = Context(None, TARGETS["cpu-vnni"], CONFIG)
    model = fold.apply(model, fold.plan(model, context), context)
    return model, analyse(model, feed_of(model, 2), CONFIG)


def studied(model: ir.Model, feed: Feed | None = None) -> tuple[ir.Model, Analysis]:
    """A model from `graphs.graph`, canonical, and what is known of its channels."""
    model = normalize(model).model
    return model, analyse(model, feed or feeds(model, 1, batch=2)[0], CONFIG)


def random_keep(analysis: Analysis, ratio: float, seed: int, *, exact_only: bool = False) -> Keep:
    """All but `ratio` of each cell's classes, chosen at random; at least one goes, at least one stays."""
    rng = np.random.default_rng(seed)
    keep = {}
    for cell in analysis.structure.cells:
        gone = min(max(1, round(ratio * cell.size)), cell.size - 1)
        if cell.exact or not exact_only:
            keep[cell.name] = np.sort(rng.permutation(cell.size)[gone:])
    return keep


def zeroed(model: ir.Model, kept: Kept) -> ir.Model:
    """The original with zeros in every slice of every initializer that pruning takes away."""
    result = clone(model)
    for name, positions in kept.items():
        value = result.graph.initializers.get(name)
        if value is None or value.const_value is None:
            continue
        mask = np.zeros(value.const_value.shape.numpy(), bool)
        mask[np.ix_(*(np.arange(n) if p is None else p for n, p in zip(mask.shape, positions, strict=True)))] = True
        array = value.const_value.numpy()
        value.const_value = ir.tensor(np.where(mask, array, np.zeros_like(array)), dtype=value.const_value.dtype)
        value.const_value.name = name
    return result
