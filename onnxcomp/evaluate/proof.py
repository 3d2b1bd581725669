"""Proofs that hold for every step: a valid graph, the same signature, and answers at two batch sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from onnxcomp.calibration.readers import Feed
from onnxcomp.errors import OnnxcompError
from onnxcomp.evaluate.fidelity import Comparison
from onnxcomp.model.signature import Dim, Signature, signature
from onnxcomp.runtime.session import SessionConfig, open_session

Shape = tuple[Dim, ...]


def check_structure(before: ir.Model, after: ir.Model, *, same_shapes: bool = False) -> str | None:
    """None if `after` is valid ONNX with the signature of `before`; otherwise what is wrong.

    No input may have another rank or other fixed sizes. With `same_shapes` the inputs must have the same shapes
    too: what is dynamic stays dynamic. The checker's verdict counts only where the original passes it: some
    exporters write files that run but do not check.
    """
    for kind in ("inputs", "outputs"):
        old = [(p.name, p.dtype) for p in getattr(signature(before), kind)]
        new = [(p.name, p.dtype) for p in getattr(signature(after), kind)]
        if old != new:
            return f"the {kind} are {_listed(new)}, not {_listed(old)}"
    for one, other in zip(signature(before).inputs, signature(after).inputs, strict=True):
        if _clash(one.shape, other.shape):
            return f"input {one.name} takes {_dims(other.shape)}, not {_dims(one.shape)}"
    if same_shapes:
        for one, other in zip(signature(before).inputs, signature(after).inputs, strict=True):
            if one.shape != other.shape:
                return f"the shape of input {one.name} changed from {one.shape} to {other.shape}"
    complaint = _checked(after)
    return complaint if complaint is not None and _checked(before) is None else None


def check_batches(
    before: ir.Model, after: ir.Model, feed: Feed, config: SessionConfig, min_cosine: float, *, exact: bool = False
) -> str | None:
    """Runs both models on `feed` doubled along a dynamic batch axis; None if they agree as they do on the feed itself.

    Also None when the batch is fixed, in one or the other (`--fix-shape`; that a dynamic one stays dynamic else is for
    `check_structure`), or when the original itself can't take the doubled feed.

    Args:
        min_cosine: Of every output, to agree.
        exact: Nothing less will do. Else one feed may be further off than the feeds are on average, if it is so at its
            own batch too.
    """
    doubled = doubled_batch(feed, signature(before))
    if doubled is None or doubled_batch(feed, signature(after)) is None:
        return None
    try:
        with open_session(before, config) as session:
            reference = session.run(doubled)
            names = session.output_names
    except OnnxcompError:
        return None
    try:
        with open_session(after, config) as session:
            answers = session.run(doubled, names)
    except OnnxcompError as error:
        return f"it fails at twice the batch, where the original does not: {error.message}"
    cosines = _cosines(names, reference, answers)
    if min(cosines, default=1.0) >= min_cosine:
        return None
    allowed = [min_cosine] * len(cosines)
    if not exact:
        with open_session(before, config) as original, open_session(after, config) as candidate:
            alone = _cosines(names, original.run(feed), candidate.run(feed, names))
        allowed = [min(min_cosine, once - SAME) for once in alone]
    for name, twice, least in zip(names, cosines, allowed, strict=True):
        if twice < least:
            return f"output {name} has cosine {twice:.4f} to the original at twice the batch"
    return None


SAME = 1e-3
"""Difference of two cosines that counts as none."""


def _cosines(names: Sequence[str], wanted: Sequence[np.ndarray], given: Sequence[np.ndarray]) -> list[float]:
    """Of each output."""
    result = []
    for name, y, z in zip(names, wanted, given, strict=True):
        comparison = Comparison(name)
        comparison.add(y, z)
        result.append(comparison.result().cosine)
    return result


def doubled_batch(feed: Feed, sign: Signature) -> Feed | None:
    """`feed` twice along axis 0 of every input that has the batch symbol there; None if the batch is not dynamic."""
    if not sign.inputs or not sign.inputs[0].shape or isinstance(sign.inputs[0].shape[0], int):
        return None
    symbol = sign.inputs[0].shape[0]
    batched = {p.name for p in sign.inputs if p.shape and p.shape[0] == symbol and not isinstance(p.shape[0], int)}
    if symbol is None and len(sign.inputs) > 1:
        return None
    return {n: np.concatenate([a, a]) if n in batched and a.ndim else a for n, a in feed.items()}


def _clash(one: Shape | None, other: Shape | None) -> bool:
    """Whether no array fits both."""
    if one is None or other is None:
        return False
    fixed = ((d, e) for d, e in zip(one, other, strict=False) if isinstance(d, int) and isinstance(e, int))
    return len(one) != len(other) or any(d != e for d, e in fixed)


def _dims(shape: Shape | None) -> str:
    return "any shape" if shape is None else f"[{', '.join('?' if d is None else str(d) for d in shape)}]"


def _listed(ports: list[tuple[str, np.dtype | None]]) -> str:
    return ", ".join(f"{name}: {dtype}" for name, dtype in ports)


def _checked(model: ir.Model) -> str | None:
    try:
        common.CheckerPass(full_check=False)(model)
    except Exception as error:
        return f"onnx.checker: {str(error).strip().splitlines()[0][:200]}"
    return None
