"""What a pruned model must be equal to: the original with what is removed masked out.

Where channels are summed away, the removed ones are multiplied by zero: in the weight, or where both operands are
activations, in one of them. The rest of the original is left as it is, since nothing else reads those channels; so the
reference holds too where a zero would be divided by, or its logarithm taken. Where an operator takes statistics over
channels, masking can't say what the pruned model does: cells of such channels are left out (see `equivalence`).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxcomp.model import shapes
from onnxcomp.model.normalize import clone
from onnxcomp.ops.attributes import constant, new_initializer
from onnxcomp.ops.axes.relations import Slot
from onnxcomp.passes.prune.analysis import Analysis
from onnxcomp.passes.prune.atoms import Contraction
from onnxcomp.passes.prune.rewrite import Kept


def masked(model: ir.Model, analysis: Analysis, kept: Kept) -> ir.Model:
    """The original model with zeros where channels that don't stay are summed away.

    Args:
        model: What was analysed.
        kept: What stays of each value.
    """
    result = clone(model)
    counterparts = dict(zip(model.graph, result.graph, strict=True))
    done: set[tuple[str, str, int]] = set()
    for contraction in analysis.structure.atoms.contractions:
        slot = _maskable(contraction)
        positions = kept.get(slot.value.name or "", ())
        held = positions[slot.axis] if slot.axis < len(positions) else None
        key = (contraction.node.name or "", slot.value.name or "", slot.axis)
        if held is not None and key not in done:
            done.add(key)
            _mask(result, counterparts[contraction.node], contraction.node, slot, held, analysis)
    shapes.refresh(result, keep_foreign=True)
    return result


def _maskable(contraction: Contraction) -> Slot:
    """The operand to mask: a weight if there is one."""
    return next((s for s in contraction.slots if constant(s.value) is not None), contraction.slots[0])


def _mask(model: ir.Model, node: ir.Node, original: ir.Node, slot: Slot, held: np.ndarray, analysis: Analysis) -> None:
    index = next(i for i, v in enumerate(original.inputs) if v is slot.value)
    value = node.inputs[index]
    array = constant(value)  # along another axis it may be masked already
    assert value is not None
    if array is not None:
        zeroed = np.zeros_like(array)
        where = tuple(held if axis == slot.axis else slice(None) for axis in range(array.ndim))
        zeroed[where] = array[where]
        node.replace_input_with(index, new_initializer(model.graph, f"{value.name}.masked", zeroed))
        return
    rank, size = len(analysis.shapes[slot.value.name or ""]), analysis.shapes[slot.value.name or ""][slot.axis]
    mask = np.isin(np.arange(size), held).reshape([-1 if axis == slot.axis else 1 for axis in range(rank)])
    dtype = ir.DataType.FLOAT if value.dtype is None else value.dtype
    name = f"{node.name}.{value.name}.mask"
    factor = new_initializer(model.graph, name, mask.astype(dtype.numpy()))
    product = ir.node("Mul", [value, factor], name=f"{name}ed")
    product.outputs[0].name, product.outputs[0].type = f"{name}ed", value.type
    model.graph.insert_before(node, [product])
    node.replace_input_with(index, product.outputs[0])
