"""Whether a model computes the same as a reference that says the same in another way, up to rounding."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.readers import Feed
from onnxcomp.errors import OnnxcompError
from onnxcomp.model.normalize import clone
from onnxcomp.ops.axes.movement import MOVES
from onnxcomp.runtime.session import SessionConfig, open_session

RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""|Δ| ≤ 1e-5 · max|value| + 1e-6: float32 sums over other lengths are rounded in another order."""

AMPLIFIED, AT_MOST = 32, 1e-3
"""Some models make much of a rounding error: where the bound above does not hold, 32 times what the reference
makes of a change in the last bits of the feed is allowed too, up to 1e-3 · max|value|: a wrong channel changes more."""

SQUASHING = frozenset({"Sigmoid", "Softmax", "LogSoftmax", "Tanh", "HardSigmoid", "Exp"})
"""Behind these a difference may drown, or a tiny one look large: what goes into them is compared instead."""


@dataclass(frozen=True)
class Equivalence:
    """The largest difference found, relative to what is allowed; or what went wrong.

    Args:
        complaint: None if the two agree.
        difference: max|Δ| / allowed, over all compared values; at most 1 where they agree.
        compared: Values that were compared.
        changed: Whether the reference differs from the original in any of them: if not, what was changed did not matter
            on these feeds.
    """

    complaint: str | None
    difference: float = 0.0
    compared: int = 0
    changed: bool = True


def watched(model: ir.Model, changed: Container[str]) -> list[str]:
    """Each output; or what goes into the squashing operator that it comes from, however its elements are moved then."""
    names: dict[str, None] = {}
    inputs = {v.name for v in model.graph.inputs}
    for output in model.graph.outputs:
        node = output.producer()
        while node is not None and node.op_type in MOVES and node.inputs[0] is not None:
            node = node.inputs[0].producer()
        inner = node.inputs[0] if node is not None and node.op_type in SQUASHING else None
        if inner is None or (inner.name or "") in changed or inner.name in inputs:
            inner = output
        names[inner.name or ""] = None
    return [name for name in names if name not in inputs]


def compare(
    model: ir.Model,
    candidate: ir.Model,
    reference: ir.Model,
    names: Sequence[str],
    feeds: Sequence[Feed],
    config: SessionConfig,
    *,
    called: str,
) -> Equivalence:
    """Holds `candidate` against `reference` on each feed that the original can take.

    Args:
        model: The original: the scale of its values counts, and whether `reference` differs from it.
        names: Values to compare, as `watched` finds them.
        feeds: Of different batch sizes, best.
        called: What the reference is, in a complaint.
    """
    # One session at a time: three of a large model would not fit into the memory of a small machine.
    taken, originals = [], []
    with open_session(_giving(model, names), config) as session:
        for feed in feeds:
            try:
                originals.append(session.run(feed, names))
                taken.append(feed)
            except OnnxcompError:  # the original itself can't take this feed
                continue
    answers, expected = (_answers(m, names, taken, config) for m in (candidate, reference))
    worst, changed = 0.0, False
    for feed, *values in zip(taken, answers, expected, originals, strict=True):
        nudged: list[np.ndarray] | None = None
        for index, (name, y, wanted, original) in enumerate(zip(names, *values, strict=True)):
            if y.shape != wanted.shape or y.dtype != wanted.dtype:
                return Equivalence(f"{name} has shape {y.shape} instead of {wanted.shape}")
            ratio = _difference(y, wanted, original)
            if ratio > 1.0 and y.dtype.kind == "f":
                nudged = nudged or _answers(reference, names, [_nudged(feed)], config)[0]
                ratio = _difference(y, wanted, original, nudged[index])
            worst = max(worst, ratio)
            changed |= y.size > 0 and not np.array_equal(wanted, original, equal_nan=y.dtype.kind == "f")
            if not ratio <= 1.0:
                return Equivalence(f"{name} differs from {called}", ratio, len(names), changed)
    return Equivalence(None, worst, len(names), changed)


def _answers(
    model: ir.Model, names: Sequence[str], feeds: Sequence[Feed], config: SessionConfig
) -> list[list[np.ndarray]]:
    """The values by name, on each feed."""
    with open_session(_giving(model, names), config) as session:
        return [session.run(feed, names) for feed in feeds]


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
