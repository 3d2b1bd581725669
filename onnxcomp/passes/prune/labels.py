"""Where the channels of an axis come to lie when an operator moves its elements, read off the labels that it moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcomp.ops.attributes import is_constant
from onnxcomp.ops.axes.movement import NOTHING, image
from onnxcomp.ops.axes.relations import View
from onnxcomp.passes.prune.components import components


@dataclass(frozen=True)
class Placement:
    """An axis of an output that holds the channels of an axis of the input.

    Args:
        axis: Of the output.
        first: int [size]: a label at each position; NOTHING where there is none.
        pairs: int [n, 2]: labels that have to be tied, since they lie in one slab of `axis`.
        ways: How many axes could have been taken.
    """

    axis: int
    first: np.ndarray
    pairs: np.ndarray
    ways: int

    @property
    def labels(self) -> np.ndarray:
        """All labels that occur in the output."""
        return np.unique(np.concatenate([self.first[self.first != NOTHING], self.pairs.ravel()]))


@dataclass(frozen=True)
class Nowhere:
    """Why no axis of an output holds the channels, and the labels that occur in it."""

    sentence: str
    labels: np.ndarray


def placed(view: View, axis: int, choice: int) -> list[Placement | Nowhere]:
    """For each output, where the positions of `axis` of the data inputs are, or why they can't be told.

    An axis along which the labels change alone is taken as it is. Else labels have to be tied in slabs: by default
    along the axis that leaves the most channels, but where the values go into a product of two activations along the
    heads, not along the width of a head: fused attention and shape arithmetic need whole heads.

    Args:
        choice: 0: the default; k: the k-th best axis.
    """
    result: list[Placement | Nowhere] = []
    for out, moved in zip(view.node.outputs, image(view, axis), strict=True):
        shape = view.shape_of(out)
        candidates = [b for b in range(moved.ndim) if moved.shape[b] == shape[b] > 1]
        slabs = {b: np.moveaxis(moved, b, 0).reshape(shape[b], -1) for b in candidates}
        if not ((moved != moved.max()) & (moved != NOTHING)).any():
            labels = np.unique(moved[moved != NOTHING])
            result.append(Nowhere("a single channel is taken out, and all of the output depends on it", labels))
            continue
        pure = [b for b in candidates if _is_pure(slabs[b])]
        if pure:
            result.append(Placement(pure[0], slabs[pure[0]].max(axis=1), np.zeros((0, 2), np.int64), 1))
            continue
        ranked = _ranked(view, slabs)
        if not ranked:
            labels = np.unique(moved[moved != NOTHING])
            result.append(Nowhere("its channels come to lie along no axis of the output", labels))
            continue
        best = ranked[choice % len(ranked)]
        result.append(Placement(best, slabs[best].max(axis=1), _pairs(slabs[best]), len(ranked)))
    return result


def _is_pure(slabs: np.ndarray) -> bool:
    """Each slab holds one label (and padding)."""
    first = slabs.max(axis=1, keepdims=True)
    return bool(((slabs == first) | (slabs == NOTHING)).all())


def _pairs(slabs: np.ndarray) -> np.ndarray:
    """Labels that share a slab: each with the largest one there."""
    first = np.broadcast_to(slabs.max(axis=1, keepdims=True), slabs.shape)
    different = (slabs != first) & (slabs != NOTHING)
    return np.unique(np.stack([first[different], slabs[different]], axis=1), axis=0)


def _ranked(view: View, slabs: dict[int, np.ndarray]) -> list[int]:
    """Axes along which more than one channel would be left, best first."""
    top = 1 + max(int(s.max()) for s in slabs.values()) if slabs else 0
    left = {}
    for axis, slab in slabs.items():
        pairs = _pairs(slab)
        roots = components(top, pairs[:, 0], pairs[:, 1])
        left[axis] = len(np.unique(roots[np.unique(slab[slab != NOTHING])]))
    useful = sorted((axis for axis in left if left[axis] > 1), key=lambda axis: (-left[axis], axis))
    if len(useful) > 1 and any(_feeds_attention(out) for out in view.node.outputs):
        innermost = max(useful)
        useful = [axis for axis in useful if axis != innermost] + [innermost]
    return useful


_NAMES = """Transpose Reshape Squeeze Unsqueeze Expand Split Gather Slice Concat Mul Div Add Sub Neg Identity Cast Sqrt
LayerNormalization RMSNormalization RotaryEmbedding Dropout"""
_THROUGH = frozenset(_NAMES.split())
_LOOKAHEAD = 200


def _feeds_attention(value: ir.Value) -> bool:
    """Whether the value reaches a product of two activations through movement and element-wise operators."""
    seen, queue = {value}, [value]
    while queue and len(seen) < _LOOKAHEAD:
        for use in queue.pop(0).uses():
            node = use.node
            if node.op_type in ("MatMul", "Einsum", "Attention", "FusedMatMul"):
                if sum(v is not None and not is_constant(v) for v in node.inputs) > 1:
                    return True
            elif node.op_type in _THROUGH:
                fresh = [out for out in node.outputs if out not in seen]
                seen.update(fresh)
                queue.extend(fresh)
    return False
