"""The proof: the pruned model, before any refit, computes what the original does with the removed channels masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.readers import Feed
from onnxcomp.errors import LimitError, OnnxcompError
from onnxcomp.model.normalize import clone
from onnxcomp.ops.axes.movement import MOVES
from onnxcomp.passes.prune.analysis import Analysis
from onnxcomp.passes.prune.reference import masked
from onnxcomp.passes.prune.rewrite import rewrite
from onnxcomp.runtime.session import SessionConfig, open_session

RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""|Δ| ≤ 1e-5 · max|value| + 1e-6: float32 sums over other lengths are rounded in another order."""

AMPLIFIED, AT_MOST = 32, 1e-3
"""Some models make much of a rounding error: where the bound above does not hold, 32 times what the masked original
makes of a change in the last bits of the feed is allowed too, up to 1e-3 · max|value|: a wrong channel changes more."""

SQUASHING = frozenset({"Sigmoid", "Softmax", "LogSoftmax", "Tanh", "HardSigmoid", "Exp"})
"""Behind these a difference may drown, or a tiny one look large: what goes into them is compared instead."""

Keep = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Equivalence:
    """The largest difference found, relative to what is allowed; or what went wrong.

    Args:
        complaint: None if the two agree.
        difference: max|Δ| / allowed, over all compared values; at most 1 where they agree.
        compared: Values that were compared.
        changed: Whether masking changed any of them: if not, the removed channels did not matter on these feeds.
    """

    complaint: str | None
    difference: float = 0.0
    compared: int = 0
    changed: bool = True


def check(model: ir.Model, analysis: Analysis, keep: Keep, feeds: Sequence[Feed], config: SessionConfig) -> Equivalence:
    """Compares the pruned with the masked model on each feed, cells that are only approximate left whole.

    Args:
        model: The original, canonical.
        keep: Cell → classes that stay.
        feeds: Of different batch sizes, best.
    """
    exact = {
        name: classes
        for name, classes in keep.items()
        if analysis.structure.cells[analysis.structure.index[name]].exact
    }
    try:
        pruned, kept = rewrite(model, analysis, exact)
        reference = masked(model, analysis, kept)
        watched = _watched(model, kept)
        return _compared(model, pruned, reference, watched, feeds, config)
    except LimitError:
        raise
    except OnnxcompError as error:
        return Equivalence(f"the pruned model does not run: {error.message}")


def _watched(model: ir.Model, kept: Mapping[str, object]) -> list[str]:
    """Each output; or what goes into the squashing operator that it comes from, however its elements are moved then."""
    names: dict[str, None] = {}
    inputs = {v.name for v in model.graph.inputs}
    for output in model.graph.outputs:
        node = output.producer()
        while node is not None and node.op_type in MOVES and node.inputs[0] is not None:
            node = node.inputs[0].producer()
        inner = node.inputs[0] if node is not None and node.op_type in SQUASHING else None
        if inner is None or inner.name in kept or inner.name in inputs:
            inner = output
        names[inner.name or ""] = None
    return [name for name in names if name not in inputs]


def _compared(
    model: ir.Model,
    pruned: ir.Model,
    reference: ir.Model,
    watched: list[str],
    feeds: Sequence[Feed],
    config: SessionConfig,
) -> Equivalence:
    worst, changed = 0.0, False
    with (
        open_session(_giving(model, watched), config) as first,
        open_session(_giving(pruned, watched), config) as second,
        open_session(_giving(reference, watched), config) as third,
    ):
        for feed in feeds:
            try:
                originals = first.run(feed, watched)
            except OnnxcompError:  # the original itself can't take this feed
                continue
            answers, expected = second.run(feed, watched), third.run(feed, watched)
            nudged: list[np.ndarray] | None = None
            for index, (name, y, wanted, original) in enumerate(
                zip(watched, answers, expected, originals, strict=True)
            ):
                if y.shape != wanted.shape or y.dtype != wanted.dtype:
                    return Equivalence(f"{name} has shape {y.shape} instead of {wanted.shape}")
                ratio = _difference(y, wanted, original)
                if ratio > 1.0 and y.dtype.kind == "f":
                    nudged = nudged or third.run(_nudged(feed), watched)
                    ratio = _difference(y, wanted, original, nudged[index])
                worst = max(worst, ratio)
                changed |= y.size > 0 and not np.array_equal(wanted, original, equal_nan=y.dtype.kind == "f")
                if not ratio <= 1.0:
                    return Equivalence(f"{name} differs from the masked original", ratio, len(watched), changed)
    return Equivalence(None, worst, len(watched), changed)


def _difference(y: np.ndarray, wanted: np.ndarray, original: np.ndarray, nudged: np.ndarray | None = None) -> float:
    """max|Δ| over what is allowed; integers and strings must be equal. `nudged`: `wanted`, on a nudged feed."""
    if y.dtype.kind != "f":
        return 0.0 if np.array_equal(y, wanted) else np.inf
    if not np.array_equal(np.isnan(y), np.isnan(wanted)):
        return np.inf
    scale = max(float(np.abs(a[np.isfinite(a)]).max(initial=0.0)) for a in (wanted, original))
    allowed = RELATIVE * scale + ABSOLUTE
    if nudged is not None:
        allowed = max(allowed, min(AMPLIFIED * _gap(nudged, wanted), AT_MOST * scale))
    return _gap(y, wanted) / allowed


def _gap(y: np.ndarray, wanted: np.ndarray) -> float:
    """max|Δ|; equal infinities and what is not a number are passed over."""
    with np.errstate(invalid="ignore"):
        gap = np.abs(y.astype(np.float64) - wanted.astype(np.float64))
    return float(np.where((y == wanted) | np.isnan(wanted), 0.0, gap).max(initial=0.0))


def _nudged(feed: Feed) -> Feed:
    """The feed with its floats changed by half an ulp or so, up or down."""
    rng = np.random.default_rng(0)
    return {
        name: array * (1 + np.finfo(array.dtype).eps * rng.choice((-1, 1), array.shape)).astype(array.dtype)
        if array.dtype.kind == "f"
        else array
        for name, array in feed.items()
    }


def _giving(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy that gives out these values too, and does not round activations: a sum in another order falls to the other
    side of a rounding edge now and then, and that is a whole step of an INT8 model."""
    result = clone(model)
    for node in result.graph:
        source = node.inputs[0].producer() if node.op_type == "DequantizeLinear" and node.inputs[0] else None
        if source is not None and source.op_type == "QuantizeLinear" and source.inputs[0] is not None:
            for use in tuple(node.outputs[0].uses()):
                use.node.replace_input_with(use.idx, source.inputs[0])
    values = ir.convenience.create_value_mapping(result.graph)
    present = {v.name for v in result.graph.outputs}
    result.graph.outputs.extend(values[name] for name in names if name not in present)
    return result
