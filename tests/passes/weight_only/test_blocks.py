"""Blocks, grids and GPTQ as arithmetic: against definitions, bounds and each other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.passes.weight_only.blocks import cut
from onnxcomp.passes.weight_only.gptq import gptq
from onnxcomp.passes.weight_only.grid import range_grid, searched_grid
from onnxcomp.passes.weight_only.packing import packed
from onnxcomp.passes.weight_only.rounding import output_error, round_matrix

CASES = [(bits, symmetric) for bits in (4, 8) for symmetric in (False, True)]


def matrix(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, columns)) * np.exp(rng.standard_normal((rows, 1)))).astype(np.float32)


def moments(columns: int, rank: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2048, rank)) @ rng.standard_normal((rank, columns)) + 0.1 * rng.standard_normal(
        (2048, columns)
    )
    return x.T @ x / len(x)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 100),
    st.sampled_from([16, 32]),
    st.sampled_from(CASES),
    st.floats(1e-6, 1e6),
    st.floats(-3, 3),
)
def test_no_weight_is_further_off_than_half_a_step(rows, columns, block, case, size, shift):
    bits, symmetric = case
    w = ((matrix(rows, columns, columns) + np.float32(shift)) * np.float32(size)).astype(np.float32)
    blocks = cut(w, block)
    grid = range_grid(blocks, bits, symmetric=symmetric)
    error = np.abs(grid.values(grid.codes(blocks)) - blocks)
    # Without zero points the end that is not the larger one lacks one step.
    allowed = np.abs(grid.scales) * (1.0 if symmetric else 0.5)
    assert (error.max(axis=-1) <= allowed * (1 + 1e-3)).all()


@pytest.mark.parametrize(("bits", "symmetric"), CASES)
def test_a_searched_scale_errs_less_than_the_range_in_every_block(bits, symmetric):
    blocks = cut(matrix(64, 256), 32)

    def errors(grid):
        return np.square(grid.values(grid.codes(blocks)) - blocks).sum(axis=-1)

    plain = errors(range_grid(blocks, bits, symmetric=symmetric))
    best = errors(searched_grid(blocks, bits, symmetric=symmetric))
    assert (best <= plain * (1 + 1e-6)).all()
    # Of 256 steps none is worth an end that is cut off.
    assert (best < 0.97 * plain).any() == ((bits, symmetric) != (8, False))


@pytest.mark.parametrize("symmetric", [False, True])
def test_zeros_stay_exactly_zero(symmetric):
    w = matrix(4, 64)
    w[1], w[2, :32], w[3, ::2] = 0.0, 0.0, 0.0
    made = round_matrix(w, "mse", 4, 32, symmetric=symmetric)
    assert made is not None
    assert (made.dense()[w == 0] == 0).all()


@pytest.mark.parametrize(("bits", "symmetric"), CASES)
def test_gptq_loses_much_less_of_the_output_than_the_nearest_values_on_correlated_inputs(bits, symmetric):
    w, h = matrix(48, 160), moments(160, 12)
    error = {
        method: output_error(w, round_matrix(w, method, bits, 32, symmetric=symmetric, moments=h).dense(), h)
        for method in ("mse", "gptq")
    }
    assert error["gptq"] < 0.3 * error["mse"], error


def test_gptq_with_uncorrelated_inputs_is_the_nearest_value():
    w = matrix(8, 64)
    grid = searched_grid(cut(w, 32), 4, symmetric=False)
    made = gptq(w, np.diag(np.linspace(1, 2, 64)), grid, 32)
    assert made is not None
    np.testing.assert_array_equal(made.codes, grid.codes(cut(w, 32)))


def test_gptq_is_the_paper_s_recursion():
    """Column by column in float64, with the inverse of what is left of H taken anew each time (equation 3)."""
    w, h = matrix(6, 40, 3), moments(40, 40, 4)
    grid = searched_grid(cut(w, 16), 4, symmetric=False)
    made = gptq(w, h, grid, 16)
    damped = h + 0.01 * np.diag(h).mean() * np.eye(40)
    order = np.argsort(-np.diag(h), kind="stable")
    left = w.astype(np.float64)
    expected = np.zeros_like(left)
    for i, k in enumerate(order):
        rest = order[i:]
        inverse = np.linalg.inv(damped[np.ix_(rest, rest)])
        s, z = grid.scales[:, k // 16].astype(float), grid.zeros[:, k // 16].astype(float)
        expected[:, k] = np.clip(np.rint(left[:, k] / s + z), 0, 15)
        error = (left[:, k] - (expected[:, k] - z) * s) / inverse[0, 0]
        left[:, rest[1:]] -= np.outer(error, inverse[0, 1:])
    assert made is not None
    agree = made.codes.reshape(6, -1)[:, :40] == expected
    assert agree.mean() > 0.98, "float32 may round a tie the other way, and what follows it"
    assert (grid.codes(cut(w, 16)).reshape(6, -1)[:, :40] != expected).mean() > 0.1, "nothing was fed back"


def test_gptq_of_inputs_that_are_always_zero_can_not_be_had():
    assert round_matrix(matrix(4, 32), "gptq", 4, 32, symmetric=False, moments=np.zeros((32, 32))) is None


def test_gptq_takes_a_singular_h():
    x = np.zeros((3, 64))
    x[:, :3] = np.eye(3)
    made = round_matrix(matrix(4, 64), "gptq", 4, 32, symmetric=False, moments=x.T @ x)
    assert made is not None
    assert np.isfinite(made.dense()).all()


def test_two_integers_share_a_byte_the_first_in_the_low_half():
    assert packed(np.array([[1, 2, 15]], np.uint8), 4).tolist() == [[0x21, 0x0F]]
    assert packed(np.array([[1, 200]], np.uint8), 8).tolist() == [[1, 200]]
