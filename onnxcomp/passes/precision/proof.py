"""The proof: types that agree, and a model that loads, runs, and stays finite where the original is."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.readers import Feed
from onnxcomp.errors import ModelError, UnavailableError
from onnxcomp.evaluate.fidelity import Comparison
from onnxcomp.model.save import weight_bytes
from onnxcomp.model.shapes import type_complaint
from onnxcomp.ops.halves import HALVES
from onnxcomp.passes.base import Proof
from onnxcomp.passes.precision.flow import is_cast
from onnxcomp.passes.precision.plan import PrecisionPlan
from onnxcomp.runtime.session import SessionConfig, open_session


def prove(before: ir.Model, after: ir.Model, plan: PrecisionPlan, config: SessionConfig, feed: Feed) -> Proof:
    """What was checked of `after`.

    Raises:
        UnavailableError: The provider has no kernels for bfloat16, so that nothing can be shown here.
    """
    half = HALVES[plan.dtype]
    complaint = type_complaint(after)
    if complaint is not None and type_complaint(before) is None:
        return Proof(False, (f"the types do not agree: {complaint}",))
    sentences = [_summary(before, after, plan)]
    if plan.clamped:
        sentences.append(f"constants of masks brought into the range of {half.name}: {len(plan.clamped)}")
    if not feed:
        return Proof(True, tuple(sentences))
    try:
        with open_session(after, config) as session:
            names = session.output_names
            given = session.run(feed, names)
    except ModelError as error:
        if plan.dtype == "fp16":
            raise
        raise UnavailableError(
            f"the {config.provider} provider of this ONNX Runtime can't run {half.name}, so nothing could be shown: "
            f"{error.message}",
            hint="use float16, or another provider with --ep",
        ) from error
    with open_session(before, config) as session:
        wanted = session.run(feed, names)
    for name, y, z in zip(names, wanted, given, strict=True):
        if _is_finite(y) and not _is_finite(z):
            return Proof(False, (*sentences, f"output {name} is not finite, where the original is"))
    cosine = min((_cosine(n, y, z) for n, y, z in zip(names, wanted, given, strict=True)), default=1.0)
    return Proof(True, (*sentences, f"runs on the {config.provider} provider; cosine of one call {cosine:.6f}"))


def _summary(before: ir.Model, after: ir.Model, plan: PrecisionPlan) -> str:
    name, halved = HALVES[plan.dtype].name, len(plan.changes())
    borders = sum(map(is_cast, after.graph)) - sum(map(is_cast, before.graph))
    share = weight_bytes(after) / max(1, weight_bytes(before))
    return (
        f"{halved} operators in {name}, {len(plan.nodes) - halved} in float32, {max(0, borders)} more casts; "
        f"{share:.2f} of the weights' bytes"
    )


def _is_finite(array: object) -> bool:
    floats = isinstance(array, np.ndarray) and np.issubdtype(array.dtype, np.floating)
    return not floats or bool(np.isfinite(array).all())  # type: ignore[call-overload]


def _cosine(name: str, wanted: np.ndarray, given: np.ndarray) -> float:
    comparison = Comparison(name)
    comparison.add(wanted, given)
    return comparison.result().cosine
