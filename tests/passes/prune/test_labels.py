"""Where movement puts channels, read off labels."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph, run

from onnxcomp.model import shapes
from onnxcomp.ops.axes.movement import NOTHING, image
from onnxcomp.ops.axes.relations import Unsupported, View
from onnxcomp.passes.prune.labels import Nowhere, Placement, placed


def _view(nodes: str, x: str, y: str, **weights: np.ndarray) -> View:
    declared = "".join(f", int64[{len(a)}] {n}" for n, a in weights.items())
    model = graph(f"g (float[{x}] x{declared}) => (float[{y}] y) {{ y = {nodes} }}", **weights)
    shapes.refresh(model)
    return View(model.graph[0], lambda v: tuple(v.shape.numpy()), lambda v, a: True)


MOVES = [
    ("Transpose<perm=[0,2,1,3]>(x)", "2,4,3,5", "2,3,4,5", {}),
    ("Reshape(x, w)", "2,4,3,5", "2,12,5", {"w": [2, 12, 5]}),
    ("Reshape(x, w)", "2,12,5", "2,4,3,5", {"w": [2, 4, 3, 5]}),
    ("Flatten(x)", "2,4,3,5", "2,60", {}),
    ("Slice(x, w1, w2, w3, w4)", "2,9", "2,4", {"w1": [1], "w2": [9], "w3": [1], "w4": [2]}),
    ("Slice(x, w1, w2, w3, w4)", "2,9", "2,5", {"w1": [-1], "w2": [-(2**62)], "w3": [1], "w4": [-2]}),
    ("Gather<axis=1>(x, w)", "2,6", "2,4", {"w": [5, 0, 0, -2]}),
    ("Tile(x, w)", "2,3", "2,6", {"w": [1, 2]}),
    ("Pad(x, w)", "2,3", "2,6", {"w": [0, 1, 0, 2]}),
    ("DepthToSpace<blocksize=2>(x)", "1,8,3,3", "1,2,6,6", {}),
    ('DepthToSpace<blocksize=2, mode="CRD">(x)', "1,8,3,3", "1,2,6,6", {}),
    ("SpaceToDepth<blocksize=2>(x)", "1,3,4,4", "1,12,2,2", {}),
    ("Squeeze(x, w)", "2,4,1,1", "2,4", {"w": [2, 3]}),
    ("Unsqueeze(x, w)", "2,4", "2,1,4", {"w": [1]}),
    ("Expand(x, w)", "2,4,1", "2,4,3", {"w": [2, 4, 3]}),
]


@pytest.mark.parametrize(("nodes", "before", "after", "weights"), MOVES, ids=[m[0] for m in MOVES])
def test_labels_move_as_onnx_runtime_moves_the_values(nodes, before, after, weights):
    arrays = {k: np.array(v) for k, v in weights.items()}
    view = _view(nodes, before, after, **arrays)
    shape = tuple(map(int, before.split(",")))
    axis = 1
    labels = np.broadcast_to(np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))]), shape)
    declared = "".join(f", int64[{len(a)}] {n}" for n, a in arrays.items())
    executed = graph(f"g (float[{before}] x{declared}) => (float[{after}] y) {{ y = {nodes} }}", **arrays)
    (moved,) = run(executed, {"x": (labels + 1).astype(np.float32)})
    expected = moved.astype(int) - 1
    (found,) = image(view, axis)
    # Axes along which labels repeat may be shrunk, to 1 or to one block.
    whole = np.tile(found, [e // f for e, f in zip(expected.shape, found.shape, strict=True)])
    np.testing.assert_array_equal(whole, np.where(expected < 0, NOTHING, expected))


def test_a_concat_numbers_the_channels_of_its_inputs_one_after_the_other():
    (found,) = image(_view("Concat<axis=1>(x, x)", "2,3", "2,6"), 1)
    assert found.reshape(-1).tolist() == [0, 1, 2, 3, 4, 5]


def test_merged_channels_are_tied_in_slabs_of_the_flattened_axis():
    (place,) = placed(_view("Flatten(x)", "2,4,3", "2,12"), 1, 0)
    assert isinstance(place, Placement)
    assert place.axis == 1
    assert place.first.tolist() == np.repeat(np.arange(4), 3).tolist()
    assert not len(place.pairs)


def test_split_channels_are_tied_along_one_axis_and_the_other_is_a_choice():
    """12 channels as 4 × 3: whole rows, or whole columns."""
    view = _view("Reshape(x, w)", "2,12", "2,4,3", w=np.array([2, 4, 3]))
    (rows,) = placed(view, 1, 0)
    (columns,) = placed(view, 1, 1)
    assert isinstance(rows, Placement)
    assert isinstance(columns, Placement)
    assert (rows.axis, columns.axis, rows.ways) == (1, 2, 2)
    assert sorted(map(tuple, columns.pairs.tolist()))[0] == (9, 0)


def test_a_single_channel_taken_out_goes_nowhere():
    (place,) = placed(_view("Gather<axis=1>(x, w)", "2,6", "2,1", w=np.array([3])), 1, 0)
    assert isinstance(place, Nowhere)
    assert place.labels.tolist() == [3]


def test_channels_padded_with_their_neighbours_are_not_understood():
    view = _view('Pad<mode="reflect">(x, w)', "2,3", "2,5", w=np.array([0, 1, 0, 1]))
    with pytest.raises(Unsupported, match="neighbours"):
        image(view, 1)
