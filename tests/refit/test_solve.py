"""Closed forms on second moments against numpy's least squares on the rows themselves."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcomp.calibration.gram import Gram
from onnxcomp.evaluate.sensitivity import relative_error
from onnxcomp.refit.solve import best_bias, damped, error, resolved, ridge


def problem(centred, n=400, columns=6, targets=3):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 1, columns)) @ rng.standard_normal((columns, columns)) + 2.0
    y = x @ rng.standard_normal((columns, targets)) + 0.3 * rng.standard_normal((n, 1, targets)) + 1.0
    gram = Gram(1, columns, targets)
    gram.add(x, y)
    return x[:, 0], y[:, 0], gram.moments(centred=centred)


def test_without_ridge_the_solution_is_least_squares_with_a_bias():
    x, y, moments = problem(centred=True)
    w = ridge(moments, np.zeros((1, 3, 6)), 1e-14)
    expected = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0].T
    np.testing.assert_allclose(w[0], expected[:, :6], atol=1e-8)
    np.testing.assert_allclose(best_bias(moments, w)[0], expected[:, 6], atol=1e-8)


def test_without_a_bias_it_is_least_squares_through_zero():
    x, y, moments = problem(centred=False)
    w = ridge(moments, np.zeros((1, 3, 6)), 1e-14)
    np.testing.assert_allclose(w[0], np.linalg.lstsq(x, y, rcond=None)[0].T, atol=1e-8)


def test_ridge_pulls_towards_the_given_weights_as_rows_added_by_hand_would():
    x, y, moments = problem(centred=False)
    towards, strength = np.random.default_rng(1).standard_normal((1, 3, 6)), 0.3
    level = strength * np.diag(moments.xx[0]).mean() * len(x)
    rows = np.concatenate([x, np.sqrt(level) * np.eye(6)])
    wanted = np.concatenate([y, np.sqrt(level) * towards[0].T])
    w = ridge(moments, towards, strength)
    np.testing.assert_allclose(w[0], np.linalg.lstsq(rows, wanted, rcond=None)[0].T, atol=1e-8)
    assert np.abs(w - towards).max() > 0.1


def test_the_error_is_the_mean_squared_residual_of_each_output():
    x, y, moments = problem(centred=True)
    w, b = np.random.default_rng(2).standard_normal((1, 3, 6)), np.array([[1.0, -2.0, 0.5]])
    np.testing.assert_allclose(error(moments, w, b)[0], ((y - x @ w[0].T - b[0]) ** 2).mean(axis=0), rtol=1e-9)
    x, y, moments = problem(centred=False)
    np.testing.assert_allclose(error(moments, w, None)[0], ((y - x @ w[0].T) ** 2).mean(axis=0), rtol=1e-9)


def test_resolved_weights_reproduce_the_output_where_a_lost_column_was_a_sum_of_kept_ones():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 5))
    x[:, 4] = x[:, 0] - 2 * x[:, 1]
    w = rng.standard_normal((2, 5))
    new = resolved(w, x.T @ x / len(x), np.array([True, True, True, True, False]), 1e-12)
    assert not new[:, 4].any()
    np.testing.assert_allclose(x @ new.T, x @ w.T, atol=1e-6)
    assert not resolved(w, x.T @ x, np.zeros(5, bool), 1e-4).any()


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_damping_makes_any_moments_regular(scale):
    xx = scale * np.ones((2, 4, 4))
    assert np.linalg.cond(damped(xx, 1e-4)[0]) < 1e6


def test_the_relative_error_of_the_mean_of_an_output_is_one():
    rng = np.random.default_rng(0)
    wanted = [[rng.standard_normal((4, 3))] for _ in range(5)]
    mean = np.concatenate([w[0] for w in wanted]).mean(axis=0)
    assert relative_error(wanted, [[np.broadcast_to(mean, (4, 3))]] * 5) == pytest.approx(1.0)
    assert relative_error(wanted, wanted) == 0.0
    assert relative_error(wanted, [[w[0][:, :2]] for w in wanted]) == pytest.approx(1.0)
    assert relative_error([[np.arange(3)]], [[np.zeros(3)]]) == 0.0, "integers don't count"
