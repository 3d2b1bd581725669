"""LSTM, GRU and RNN."""

from __future__ import annotations

from collections.abc import Iterator

from onnxcomp.ops.attributes import int_attribute
from onnxcomp.ops.axes.relations import Contracted, Count, Relation, Slot, Tied, Unsupported, View, rule

PEEPHOLE_GATES = 3


@rule("LSTM", "GRU", "RNN")
def recurrent(n: View) -> Iterator[Relation]:
    """hₜ = f(W·xₜ + R·hₜ₋₁ + b), all gates stacked; w: [directions, gates·H, in], r: [directions, gates·H, H].

    Hidden unit i is row i of every gate, column i of R, entry i of biases, peepholes and states; both directions lie in
    one tensor and share it. x: [time, batch, in], y: [time, directions, batch, H].
    """
    if int_attribute(n.node, "layout", 0):
        raise Unsupported("layout 1")
    hidden, gates = n.shape(2)[2], n.shape(2)[1] // n.shape(2)[2]
    yield Contracted((n.slot(0, 2), n.slot(1, 2)))
    yield Contracted((n.slot(2, 2),))  # the state of the step before, inside the operator
    stacked = {1: (1, gates), 2: (1, gates), 3: (1, 2 * gates), 7: (1, PEEPHOLE_GATES)}
    for index, (axis, blocks) in stacked.items():
        for block in range(blocks if n.given(index) is not None else 0):
            yield Tied((n.slot(2, 2), n.slot(index, axis).part(block * hidden, (block + 1) * hidden)))
    states = [n.slot(index, 2) for index in (5, 6) if n.given(index) is not None]
    yield Tied((n.slot(2, 2), *states, *(n.at(out, -1) for out in n.outputs())))
    for out in n.outputs():
        yield Tied((n.slot(0, 1), n.at(out, -2)))
        if out is n.node.outputs[0]:
            yield Tied((n.slot(0, 0), Slot(out, 0)))
    yield Count("hidden_size", n.slot(2, 2))
