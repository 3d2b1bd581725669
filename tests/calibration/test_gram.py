"""Second moments of a stream of rows against numpy's over all of them."""

from __future__ import annotations

import numpy as np
import pytest

from onnxcomp.calibration.gram import Gram


def data(n=500, groups=2, columns=5, targets=3, offset=0.0, dtype=np.float32):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, groups, columns)) @ rng.standard_normal((columns, columns)) + offset
    y = np.einsum("ngd,od->ngo", x, rng.standard_normal((targets, columns))) + rng.standard_normal((n, groups, targets))
    return x.astype(dtype), y.astype(dtype)


def filled(x, y, parts=1):
    gram = Gram(x.shape[1], x.shape[2], 0 if y is None else y.shape[2])
    for i in range(parts):
        gram.add(x[i::parts], None if y is None else y[i::parts])
    return gram


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_centred_moments_are_covariances_even_far_from_zero(offset):
    x, y = data(offset=offset)
    found = filled(x, y, parts=3).moments(centred=True)
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    for g in range(2):
        both = np.cov(np.concatenate([y64[:, g], x64[:, g]], axis=1).T, bias=True)
        np.testing.assert_allclose(found.xx[g], both[3:, 3:], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.yx[g], both[:3, 3:], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(found.yy[g], np.diag(both)[:3], rtol=1e-4)
    np.testing.assert_allclose(found.mean_x, x64.mean(axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.mean_y, y64.mean(axis=0), rtol=1e-6, atol=1e-6)


def test_moments_about_zero_are_mean_products():
    x, y = data(offset=3.0, dtype=np.float64)
    found = filled(x, y, parts=4).moments(centred=False)
    np.testing.assert_allclose(found.xx, np.einsum("ngd,nge->gde", x, x) / len(x), rtol=1e-12)
    np.testing.assert_allclose(found.yx, np.einsum("ngo,ngd->god", y, x) / len(x), rtol=1e-12)
    np.testing.assert_allclose(found.yy, (y * y).mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("centred", [True, False])
def test_two_halves_merged_equal_the_whole(centred):
    x, y = data(dtype=np.float64, offset=2.0)
    left, right = filled(x[:100], y[:100]), filled(x[100:], y[100:])
    left.merge(right)
    left.merge(Gram(2, 5, 3))
    empty = Gram(2, 5, 3)
    empty.merge(left)
    whole, merged, copied = (g.moments(centred=centred) for g in (filled(x, y), left, empty))
    assert merged.count == copied.count == len(x)
    for field in ("xx", "yx", "yy", "mean_x", "mean_y"):
        np.testing.assert_allclose(getattr(merged, field), getattr(whole, field), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(getattr(copied, field), getattr(whole, field), rtol=1e-10, atol=1e-12)


def test_more_rows_than_one_chunk_are_all_counted():
    x, _ = data(n=20_001)
    found = filled(x, None).moments(centred=False)
    assert found.count == 20_001
    expected = np.einsum("ngd,nge->gde", x.astype(np.float64), x.astype(np.float64)) / len(x)
    np.testing.assert_allclose(found.xx, expected, rtol=1e-4, atol=1e-4)


def test_half_precision_rows_do_not_overflow():
    x = np.full((100, 1, 2), 300, np.float16)
    assert filled(x, None).moments(centred=False).xx[0, 0, 0] == pytest.approx(90_000)
