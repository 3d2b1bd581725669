"""How far two models are apart inside: the values that both have by name, over a few feeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.readers import Feed
from onnxcomp.model.normalize import giving
from onnxcomp.ops.attributes import is_constant, qualified
from onnxcomp.ops.axes.movement import MOVES
from onnxcomp.runtime.call_shapes import shapes_of_call
from onnxcomp.runtime.session import SessionConfig, open_session

DEQUANTIZED = ".dequantized"
"""Suffix of what stands for a value behind its QuantizeLinear and DequantizeLinear: what the next layer reads."""

MOST_VALUES = 256
GROUP_VALUES, GROUP_BYTES = 64, 64 * 2**20
"""What one pair of sessions gives out at a time, and its bytes in one call of the first model."""


@dataclass(frozen=True)
class LayerError:
    """A value of both models.

    Args:
        name: Of the value; `op_type`: of the node of the first model that computes it.
        error: Σ ‖a − b‖² / Σ ‖a‖² over the feeds.
    """

    name: str
    op_type: str
    error: float


@dataclass(frozen=True)
class Layers:
    """What was compared inside two models.

    Args:
        errors: The worst first.
        values: Floating-point values that nodes of the first model compute.
        matched: Those of them that the second has by name.
        reshaped: Names of those that have another shape there, such as pruned channels: they can't be compared.
    """

    errors: tuple[LayerError, ...]
    values: int
    matched: int
    reshaped: tuple[str, ...] = ()


def compare_layers(
    a: ir.Model, b: ir.Model, feeds: Sequence[Feed], config: SessionConfig, *, most: int = MOST_VALUES
) -> Layers:
    """Fetches the values that two models have in common by name, a group at a time, and compares them.

    ONNX Runtime doesn't fuse over a value that it gives out, so a value in the middle of a fusion is that of the
    unfused operators.

    Args:
        a, b: In canonical form; the error is relative to `a`.
        feeds: Few.
        most: Values to compare; of more, every k-th in the order of the graph.

    Raises:
        OnnxcompError: One of the models does not run when these values are asked for.
    """
    own, other = observed_values(a), observed_values(b)
    common = [name for name in own if name in other]
    chosen = common if len(common) <= most else [common[i * len(common) // most] for i in range(most)]
    sizes = {name: prod(shape) for name, shape in shapes_of_call(a, feeds[0], config).items()} if chosen else {}
    errors: dict[str, float] = {}
    reshaped: list[str] = []
    for group in _groups(chosen, sizes):
        pairs = [(own[name].name or "", other[name].name or "") for name in group]
        for name, error in zip(group, _errors(a, b, pairs, feeds, config), strict=True):
            if error is None:
                reshaped.append(name)
            else:
                errors[name] = error
    found = [LayerError(name, _operator(own[name]), error) for name, error in errors.items()]
    found.sort(key=lambda layer: -layer.error)
    return Layers(tuple(found), len(own), len(common), tuple(reshaped))


def observed_values(model: ir.Model) -> dict[str, ir.Value]:
    """Floating-point values that nodes of the main graph compute, by the name that they had before quantisation; those
    that only move data are left out."""
    found: dict[str, ir.Value] = {}
    for node in model.graph:
        # Constant: a dequantised weight, or what folding would remove. Moved: the error of what it moves, once more.
        if node.op_type in MOVES or all(v is None or is_constant(v) for v in node.inputs):
            continue
        for value in node.outputs:
            base = (value.name or "").removesuffix(DEQUANTIZED)
            if base and _is_float(value) and (base not in found or value.name != base):
                found[base] = value
    return found


def _is_float(value: ir.Value) -> bool:
    is_tensor = value.type is None or isinstance(value.type, ir.TensorType)
    return is_tensor and (value.dtype is None or value.dtype.is_floating_point())


def _operator(value: ir.Value) -> str:
    """The operator that a value is the result of, through the pair that quantises it."""
    node = value.producer()
    while node is not None and node.op_type in ("DequantizeLinear", "QuantizeLinear") and node.inputs[0] is not None:
        before = node.inputs[0].producer()
        if before is None:
            break
        node = before
    return "" if node is None else qualified(node)


def _groups(names: Sequence[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    group: list[str] = []
    held = 0
    for name in names:
        size = 4 * sizes.get(name, 2**16)
        if group and (len(group) == GROUP_VALUES or held + size > GROUP_BYTES):
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    if group:
        yield group


def _errors(
    a: ir.Model, b: ir.Model, pairs: Sequence[tuple[str, str]], feeds: Sequence[Feed], config: SessionConfig
) -> list[float | None]:
    """The relative error of each pair of values; None where the shapes differ or they are no floats."""
    signal, noise = np.zeros(len(pairs)), np.zeros(len(pairs))
    differ: set[int] = set()
    names = [[one for one, _ in pairs], [two for _, two in pairs]]
    with open_session(giving(a, names[0]), config) as first, open_session(giving(b, names[1]), config) as second:
        for feed in feeds:
            arrays = zip(first.run(feed, names[0]), second.run(feed, names[1]), strict=True)
            for i, (y, z) in enumerate(arrays):
                if y.shape != z.shape or y.dtype.kind != "f" or z.dtype.kind != "f":
                    differ.add(i)
                    continue
                y, z = y.astype(np.float64).ravel(), z.astype(np.float64).ravel()
                # Equal infinities, as masks of attention hold, are no difference.
                both = np.isfinite(y) | ~((y == z) | (np.isnan(y) & np.isnan(z)))
                y, z = y[both], z[both]
                with np.errstate(invalid="ignore", over="ignore"):
                    signal[i] += y @ y
                    noise[i] += (y - z) @ (y - z)
    return [None if i in differ else _ratio(n, s) for i, (n, s) in enumerate(zip(noise, signal, strict=True))]


def _ratio(noise: float, signal: float) -> float:
    if noise == 0.0:
        return 0.0
    return float(noise / signal) if signal > 0.0 and np.isfinite(noise) and np.isfinite(signal) else inf
