"""Which nodes must stay float32, and why: by their operator, their weights, and the values that calibration saw."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.stream import Observed
from onnxcomp.ops.attributes import bodies, constant, float_attribute, is_constant, is_standard, qualified
from onnxcomp.ops.halves import DENOMINATORS, HIDDEN, NEEDS_FLOAT32, Half, keeps_epsilon, operands
from onnxcomp.ops.kernels import QUANTIZATION_OPERATORS
from onnxcomp.passes.precision.flow import counted, is_float32, takes_any
from onnxcomp.passes.selection import left_out
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.text import printable

WEIGHT_ERROR = 0.02
"""Relative error ‖w − ŵ‖ / ‖w‖ of a weight in 16 bits from which on it stays float32; that of normal numbers is below
0.0005 (float16) or 0.004 (bfloat16)."""

CHUNK = 1 << 20
"""Elements of a weight that are looked at together."""

PASSING = frozenset(["Clip", "Expand", "Identity", "Max", "Reshape", "Sqrt", "Squeeze", "Transpose", "Unsqueeze"])
"""Operators behind which a number that was kept from zero still is one."""

FALLBACK_EPSILON = 1e-5
"""What every operator of ONNX with an `epsilon` takes where none is given."""


@dataclass(frozen=True)
class Verdict:
    """Why a node stays float32."""

    code: Reason
    sentence: str


def candidates(graph: ir.Graph) -> list[ir.Node]:
    """Nodes that read or write float32 tensors, and those with bodies; but for those that take any type."""
    return [n for n in graph if not takes_any(n) and (any(map(is_float32, (*n.inputs, *n.outputs))) or any(bodies(n)))]


def by_operator(
    nodes: Iterable[ir.Node], model: ir.Model, half: Half, only: Sequence[str], exclude: Sequence[str]
) -> dict[ir.Node, Verdict]:
    """Nodes that stay float32 whatever their values are."""
    opset, counting = model.opset_imports.get("", 0), counted(model.graph)
    result = {}
    for node in nodes:
        verdict = _by_operator(node, opset, half, only, exclude)
        if verdict is None and node in counting:
            sentence = f"computed from integers alone, of which {half.name} holds {half.whole} and above not exactly"
            verdict = Verdict(Reason.NEEDS_FLOAT32, sentence)
        if verdict is not None:
            result[node] = verdict
    return result


def _by_operator(node: ir.Node, opset: int, half: Half, only: Sequence[str], exclude: Sequence[str]) -> Verdict | None:
    if any(True for _ in bodies(node)):
        return Verdict(Reason.INSIDE_SUBGRAPH, "its bodies are left as they are")
    if not is_standard(node):
        return Verdict(Reason.UNKNOWN_OPERATOR, f"operator {printable(qualified(node))} is outside ai.onnx")
    reason = left_out(node, only, exclude)
    if reason is not None:
        return Verdict(reason, DESCRIPTIONS[reason])
    if _in_integers(node):
        return Verdict(Reason.ALREADY_QUANTIZED, "it belongs to a quantised operator, whose kernel takes no casts")
    if node.op_type in NEEDS_FLOAT32:
        return Verdict(Reason.NEEDS_FLOAT32, NEEDS_FLOAT32[node.op_type])
    allowed = operands(node, opset, half)
    if allowed is None:
        return Verdict(Reason.UNKNOWN_OPERATOR, f"onnx knows no {node.op_type} at opset {opset}")
    if any(
        v is not None and (v.dtype is None or not _is_tensor(v)) for v in (*node.inputs, *node.outputs) if _named(v)
    ):
        return Verdict(Reason.UNSUPPORTED_FORM, "the type of an operand is unknown, or no tensor")
    pairs = (*zip(node.inputs, allowed.inputs, strict=True), *zip(node.outputs, allowed.outputs, strict=True))
    if not any(fits for value, fits in pairs if is_float32(value)):
        return Verdict(Reason.NO_HALF, f"{node.op_type} has no {half.name} at opset {opset}")
    epsilon = float_attribute(node, "epsilon", FALLBACK_EPSILON)
    if 0 <= epsilon < half.smallest and not keeps_epsilon(node, opset):
        return Verdict(Reason.OUT_OF_RANGE, f"its epsilon is zero in {half.name}")
    return None


def _in_integers(node: ir.Node) -> bool:
    """Whether a node quantises or dequantises, or stands at such a node."""
    before = (v.producer() for v in node.inputs if v is not None)
    behind = (use.node for v in node.outputs for use in v.uses())
    return any(n is not None and n.op_type in QUANTIZATION_OPERATORS for n in (node, *before, *behind))


def _named(value: ir.Value | None) -> bool:
    return value is not None and bool(value.name)


def _is_tensor(value: ir.Value) -> bool:
    return isinstance(value.type, ir.TensorType | None)


def by_weights(
    nodes: Iterable[ir.Node], opset: int, half: Half, clamped: frozenset[ir.Value]
) -> dict[ir.Node, Verdict]:
    """Nodes with a constant that overflows or vanishes, and what divides by a number that such a constant keeps from
    zero."""
    troubles: dict[ir.Value, str | None] = {}
    result: dict[ir.Node, Verdict] = {}
    for node in nodes:
        for value in _convertible(node, opset, half):
            if not is_constant(value) or value in clamped:
                continue
            if value not in troubles:
                troubles[value] = _weight_trouble(value, half)
            trouble = troubles[value]
            if trouble is not None:
                result[node] = Verdict(Reason.OUT_OF_RANGE, trouble)
    return _guarded(result, half) | result


def _weight_trouble(value: ir.Value, half: Half) -> str | None:
    """What is wrong with a constant in 16 bits. Infinities are not, since every type has them."""
    array = constant(value)
    assert array is not None
    largest, lost, total = 0.0, 0.0, 0.0
    flat = array.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        part = part[np.isfinite(part)].astype(np.float64)
        largest = max(largest, float(np.abs(part).max(initial=0.0)))
        if largest > half.largest:
            return f"its constant {printable(value.name or '')!r} reaches {largest:.3g}, beyond {half.largest:.5g}"
        lost += float(((part.astype(half.dtype.numpy()).astype(np.float64) - part) ** 2).sum())
        total += float((part**2).sum())
    error = (lost / total) ** 0.5 if total > 0 else float(largest > 0)
    if error > WEIGHT_ERROR:
        sentence = f"its constant {printable(value.name or '')!r} (largest {largest:.3g}) is off by {error:.0%}"
        return f"{sentence} in {half.name}"
    return None


def _guarded(guards: Iterable[ir.Node], half: Half) -> dict[ir.Node, Verdict]:
    sentence = f"it divides by a number that a constant keeps from zero, and the constant is lost in {half.name}"
    verdict = Verdict(Reason.NEEDS_FLOAT32, sentence)
    result: dict[ir.Node, Verdict] = {}
    queue = deque(v for node in guards for v in node.outputs)
    while queue:
        for use in queue.popleft().uses():
            if use.node in result:
                continue
            if use.node.op_type in PASSING:
                queue.extend(use.node.outputs)
                result[use.node] = verdict
            elif (use.node.op_type, use.idx) in DENOMINATORS:
                result[use.node] = verdict
    return result


def activations(nodes: Iterable[ir.Node], opset: int, half: Half) -> list[str]:
    """Names of the float32 activations that these nodes would read or write in 16 bits."""
    values = (v for node in nodes for v in _convertible(node, opset, half) if not is_constant(v))
    return list(dict.fromkeys(v.name for v in values if v.name))


def by_values(
    nodes: Iterable[ir.Node],
    opset: int,
    half: Half,
    seen: Mapping[str, Observed],
    way: frozenset[ir.Value],
    safety: float,
) -> dict[ir.Node, Verdict]:
    """Nodes of which calibration saw an operand leave the range.

    Args:
        way: Values on the way of a mask to its Softmax, of which only the upper end counts.
        safety: Share of the range that may be used.
    """
    result = {}
    for node in nodes:
        for value in _convertible(node, opset, half):
            name = value.name or ""
            if name not in seen:
                continue
            inner = HIDDEN.get(node.op_type) if value in node.outputs else None
            verdict = _value_trouble(seen[name], name, half, safety * half.largest, inner, masked=value in way)
            if verdict is not None:
                result[node] = verdict
                break
    return result


def _value_trouble(
    seen: Observed, name: str, half: Half, limit: float, inner: object, *, masked: bool
) -> Verdict | None:
    ends = seen.extremes
    if masked and not ends.finite:
        return None  # −∞ is what it is for, and says nothing of the other end
    if not ends.finite:
        return Verdict(Reason.NOT_FINITE, f"calibration saw a value that is not finite in {printable(name)!r}")
    if ends.minimum > ends.maximum:
        return Verdict(Reason.NOT_OBSERVED, f"no calibration feed reached {printable(name)!r}")
    largest = max(abs(ends.maximum), 0.0 if masked else abs(ends.minimum))
    if largest > limit:
        return Verdict(Reason.OUT_OF_RANGE, f"{printable(name)!r} reaches {largest:.3g}; {limit:.3g} is allowed")
    hidden = inner(largest) if callable(inner) else 0.0
    if hidden > limit:
        sentence = f"the sum behind {printable(name)!r} reaches {hidden:.3g}; {limit:.3g} is allowed"
        return Verdict(Reason.OUT_OF_RANGE, sentence)
    if 0 < largest < half.smallest_normal and not masked:
        return Verdict(Reason.OUT_OF_RANGE, f"{printable(name)!r} stays below {largest:.3g}, where bits are lost")
    return None


def _convertible(node: ir.Node, opset: int, half: Half) -> list[ir.Value]:
    allowed = operands(node, opset, half)
    if allowed is None:
        return []
    pairs = (*zip(node.inputs, allowed.inputs, strict=True), *zip(node.outputs, allowed.outputs, strict=True))
    return [value for value, fits in pairs if value is not None and fits and is_float32(value)]
