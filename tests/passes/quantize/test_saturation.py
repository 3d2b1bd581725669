"""INT8 weights where two u8·s8 products are added in a saturating int16: no sum may saturate, whatever the input."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graphs import run

from onnxcomp.passes.integer_weights import largest_pairs, quantize_weight, weight_scales

INT16_MAX = 32_767


def worst_sums(integers: np.ndarray) -> int:
    """Largest |255·q₁ + 255·q₂| of neighbours of one sign along the sum, input channels first or last."""
    channels = integers.astype(np.int64)
    worst = 0
    for order in (channels, np.moveaxis(channels, 1, -1)):
        rows = order.reshape(len(channels), -1)
        for part in (np.maximum(rows, 0), np.maximum(-rows, 0)):
            worst = max(worst, int((255 * (part[:, 1:] + part[:, :-1])).max(initial=0)))
    return worst


@pytest.mark.parametrize("shape", [(8, 16, 3, 3), (16, 3, 7, 7), (8, 64, 1, 1), (32, 48), (4, 1)])
def test_no_pair_of_neighbours_can_saturate_and_the_resolution_is_at_least_seven_bits(shape):
    weight = np.random.default_rng(0).standard_t(3, shape).astype(np.float32)
    scales = weight_scales(weight, 0, pairs_saturate=True)
    assert worst_sums(quantize_weight(weight, scales, 0)) <= INT16_MAX
    full = weight_scales(weight, 0)
    assert (scales >= full).all()
    assert (scales <= full * 2.0 * (1 + 1e-6)).all()
    if weight.size > 100:
        assert (scales < full * 1.98).any(), "no finer than seven bits anywhere"
        assert worst_sums(quantize_weight(weight, full, 0)) > INT16_MAX, "the case proves nothing"


def test_neighbours_of_opposite_signs_do_not_add_up():
    assert largest_pairs(np.array([[100.0, -100.0, 3.0, 4.0], [1.0, 2.0, -4.0, -5.0]]), axis=0).tolist() == [100.0, 9.0]


@pytest.mark.parametrize(
    ("channels", "filters", "kernel", "group"),
    [(32, 32, 3, 1), (64, 16, 1, 1), (3, 16, 3, 1), (32, 32, 3, 4), (32, 32, 3, 32)],
)
def test_the_installed_runtime_convolves_exactly_with_inputs_of_zeros_and_255(channels, filters, kernel, group):
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((filters, channels // group, kernel, kernel)).astype(np.float32)
    depthwise = group == channels
    integers = quantize_weight(weight, weight_scales(weight, 0, pairs_saturate=not depthwise), 0)
    x = (rng.integers(0, 2, (1, channels, 9, 9)) * 255).astype(np.uint8)
    exact = _convolved(x, integers, group)
    step = float(np.abs(exact).max()) / 120
    found = run(_convolution(integers, group, step), {"x": x})[0]
    expected = np.clip(np.rint(exact / step) + 128, 0, 255)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert np.ptp(expected) > 150


def _convolved(x: np.ndarray, w: np.ndarray, group: int) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x[0].astype(np.int64), w.shape[2:], axis=(1, 2))
    parts = zip(np.split(windows, group), np.split(w.astype(np.int64), group), strict=True)
    return np.concatenate([np.einsum("chwij,ocij->ohw", a, b) for a, b in parts])[None]


def _convolution(w: np.ndarray, group: int, step: float) -> ir.Model:
    """x (uint8) → QLinearConv with unit scales → y (uint8) around 128, one unit for each `step`."""
    values = {
        "s": np.float32(1.0), "z": np.uint8(0), "w": w, "wz": np.int8(0), "ys": np.float32(step), "yz": np.uint8(128),
    }  # fmt: skip
    constants = [ir.val(n, const_value=ir.tensor(np.asarray(a), name=n)) for n, a in values.items()]
    named = {v.name: v for v in constants}
    x = ir.val("x", ir.DataType.UINT8, ["N", w.shape[1] * group, 9, 9])
    inputs = [x, named["s"], named["z"], named["w"], named["s"], named["wz"], named["ys"], named["yz"]]
    node = ir.node("QLinearConv", inputs, {"group": group})
    node.outputs[0].name, node.outputs[0].dtype = "y", ir.DataType.UINT8
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=constants, opset_imports={"": 13}, name="g")
    return ir.Model(graph, ir_version=8)
