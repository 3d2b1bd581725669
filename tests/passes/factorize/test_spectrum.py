"""The directions that are kept, held against other ways to find them: whitening, a singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import graph

from onnxcomp.calibration.gram import Gram
from onnxcomp.passes.factorize.sites import Site, find_sites
from onnxcomp.passes.factorize.spectrum import Spectrum, plain, spectrum, wanted

RANK = 10


def site_of(outputs: int, columns: int, *, bias: bool = True, seed: int = 0) -> Site:
    """One Gemm x·w (+ b), outputs × columns."""
    add = f", float[{outputs}] wb" if bias else ""
    node = f"Gemm(x, w{', wb' if bias else ''})" if bias else "MatMul(x, w)"
    model = graph(
        f"g (float[N,{columns}] x, float[{columns},{outputs}] w{add}) => (float[N,{outputs}] y) {{ y = {node} }}",
        seed=seed,
    )
    sites, skips = find_sites(model, (), ())
    assert not skips
    return sites[0]


def rows_of(columns: int, count: int = 3000, seed: int = 1) -> np.ndarray:
    """Correlated rows with a mean, float64."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((columns, columns)) * np.exp(-np.arange(columns) / 8)
    return rng.standard_normal((count, columns)) @ mixing.T + rng.standard_normal(columns)


def moments_of(site: Site, x: np.ndarray, method: str) -> Gram | None:
    """The Gram that `wanted` asks for."""
    want = wanted(site, method)  # type: ignore[arg-type]
    if want is None:
        return None
    gram = want.gram()
    rows = x if want.side == "inputs" else outputs(site, x)
    gram.add(rows.reshape(len(x), gram.groups, gram.columns))
    return gram


def outputs(site: Site, x: np.ndarray) -> np.ndarray:
    offset = site.views[0].offset()
    return x @ site.views[0].matrix()[0].T + (0 if offset is None else offset)


def approximate(site: Site, found: Spectrum, x: np.ndarray, rank: int = RANK) -> np.ndarray:
    """What the two factors give."""
    first, second, shift = found.factors(site.views[0].matrix(), rank)
    offset = site.views[0].offset()
    return x @ first[0].T @ second[0].T + (0 if offset is None else offset) + shift[0]


@pytest.mark.parametrize(("out", "columns"), [(24, 40), (40, 24)], ids=["outputs", "inputs"])
def test_without_regularisation_the_error_on_the_rows_is_the_tail_of_the_spectrum(out: int, columns: int) -> None:
    site, x = site_of(out, columns), rows_of(columns)
    found = spectrum(site, "covariance", moments_of(site, x, "covariance"), alpha=0.0)
    y = outputs(site, x)
    centred = y - y.mean(axis=0)
    for rank in (2, RANK, 20):
        lost = ((y - approximate(site, found, x, rank)) ** 2).sum() / (centred**2).sum()
        assert lost == pytest.approx(1 - found.energies[rank], rel=1e-6, abs=1e-12)
        eigenvalues = np.linalg.eigvalsh(np.cov(y.T, bias=True))[::-1]
        assert lost == pytest.approx(eigenvalues[rank:].sum() / eigenvalues.sum(), rel=1e-6, abs=1e-9)
    assert 1e-6 < 1 - found.energies[RANK] < 0.5


@pytest.mark.parametrize(("out", "columns"), [(24, 40), (40, 24)], ids=["outputs", "inputs"])
def test_about_zero_and_without_regularisation_it_is_cholesky_whitening(out: int, columns: int) -> None:
    """SVD-LLM: C = L·Lᵀ, SVD of W·L, back through L⁻¹."""
    site, x = site_of(out, columns, bias=False), rows_of(columns)
    found = spectrum(site, "covariance", moments_of(site, x, "covariance"), alpha=0.0)
    weight = site.views[0].matrix()[0]
    lower = np.linalg.cholesky(x.T @ x / len(x))
    u, s, vt = np.linalg.svd(weight @ lower, full_matrices=False)
    whitened = (u[:, :RANK] * s[:RANK]) @ vt[:RANK] @ np.linalg.inv(lower)
    first, second, shift = found.factors(weight[None], RANK)
    np.testing.assert_allclose(second[0] @ first[0], whitened, rtol=0, atol=1e-6 * np.abs(whitened).max())
    assert not shift.any()
    assert np.abs(whitened - weight).max() > 1e-3


@pytest.mark.parametrize(("out", "columns"), [(24, 40), (40, 24)])
def test_plain_svd_is_the_truncated_svd_of_the_weight(out: int, columns: int) -> None:
    site = site_of(out, columns)
    weight = site.views[0].matrix()
    first, second, shift = spectrum(site, "svd", None, 0.1).factors(weight, RANK)
    u, s, vt = np.linalg.svd(weight[0], full_matrices=False)
    np.testing.assert_allclose(second[0] @ first[0], (u[:, :RANK] * s[:RANK]) @ vt[:RANK], atol=1e-12)
    assert not shift.any()


@pytest.mark.parametrize(("out", "columns"), [(24, 40), (40, 24)])
def test_asvd_is_the_svd_of_the_scaled_weight_scaled_back(out: int, columns: int) -> None:
    site, x = site_of(out, columns), rows_of(columns)
    weight = site.views[0].matrix()[0]
    scale = np.sqrt((x**2).mean(axis=0))
    u, s, vt = np.linalg.svd(weight * scale, full_matrices=False)
    expected = (u[:, :RANK] * s[:RANK]) @ vt[:RANK] / scale
    first, second, _ = spectrum(site, "asvd", moments_of(site, x, "asvd"), 0.1).factors(weight[None], RANK)
    np.testing.assert_allclose(second[0] @ first[0], expected, atol=1e-9)
    assert np.abs(expected - (second[0] @ second[0].T @ weight)).max() < 1e-9


def test_much_regularisation_is_the_plain_svd() -> None:
    site, x = site_of(24, 40), rows_of(40)
    weight = site.views[0].matrix()
    gram = moments_of(site, x, "covariance")

    def product(alpha: float) -> np.ndarray:
        first, second, _ = spectrum(site, "covariance", gram, alpha).factors(weight, RANK)
        return second @ first

    first, second, _ = plain(weight).factors(weight, RANK)
    np.testing.assert_allclose(product(1e9), second @ first, atol=1e-6)
    assert np.abs(product(0.1) - second @ first).max() > 1e-2


@pytest.mark.parametrize("count", [20, 60])
def test_with_few_rows_the_default_loses_less_on_others_than_no_regularisation_or_the_plain_svd(count: int) -> None:
    errors = {"none": 0.0, "default": 0.0, "svd": 0.0}
    for seed in range(12):
        site = site_of(40, 60, seed=seed)
        x, other = rows_of(60, count, seed=seed), rows_of(60, 2000, seed=seed)[count:]
        gram = moments_of(site, x, "covariance")
        y = outputs(site, other)
        candidates = {"none": (gram, 0.0), "default": (gram, 0.1)}
        for name, (moments, alpha) in candidates.items():
            found = spectrum(site, "covariance", moments, alpha)
            errors[name] += ((y - approximate(site, found, other)) ** 2).sum()
        errors["svd"] += ((y - approximate(site, plain(site.views[0].matrix()), other)) ** 2).sum()
    assert errors["default"] <= errors["none"] * 1.001
    assert errors["default"] < errors["svd"]


@pytest.mark.parametrize("method", ["covariance", "asvd", "svd"])
@pytest.mark.parametrize(("out", "columns"), [(24, 40), (40, 24)])
def test_the_full_rank_is_the_whole(method: str, out: int, columns: int) -> None:
    site, x = site_of(out, columns), rows_of(columns)
    found = spectrum(site, method, moments_of(site, x, method), 0.1)  # type: ignore[arg-type]
    weight = site.views[0].matrix()
    first, second, shift = found.factors(weight, min(out, columns))
    np.testing.assert_allclose(second @ first, weight, atol=1e-9)
    np.testing.assert_allclose(shift, 0, atol=1e-9)
    assert found.energies[-1] == pytest.approx(1.0)


def test_signs_and_order_are_those_of_every_run() -> None:
    site, x = site_of(24, 40), rows_of(40)
    one, two = (spectrum(site, "covariance", moments_of(site, x, "covariance"), 0.1) for _ in range(2))
    np.testing.assert_array_equal(one.basis, two.basis)
    assert (np.take_along_axis(one.basis, np.abs(one.basis).argmax(axis=1)[:, None], axis=1) > 0).all()
    unregularised = spectrum(site, "covariance", moments_of(site, x, "covariance"), 0.0)
    assert (np.diff(unregularised.shares) <= 1e-9).all()


def test_channels_between_the_factors_have_about_equal_variance() -> None:
    """What INT8 wants: one scale serves all of them."""
    site, x = site_of(40, 60), rows_of(60)
    found = spectrum(site, "covariance", moments_of(site, x, "covariance"), 0.1)
    first, second, _ = found.factors(site.views[0].matrix(), 16)
    variances = np.var(x @ first[0].T, axis=0)
    direct = np.var(outputs(site, x) @ found.basis[0, :, :16], axis=0)
    assert direct.max() / direct.min() > 100
    assert variances.max() / variances.mean() < 2.01
    np.testing.assert_allclose(second[0].T @ second[0], np.eye(16), atol=1e-12)


def test_the_moments_of_groups_stay_apart() -> None:
    model = graph("g (float[N,32,6,6] x, float[64,16,3,3] w) => (float[N,64,4,4] y) { y = Conv<group = 2>(x, w) }")
    (site,), _ = find_sites(model, (), ())
    rng = np.random.default_rng(0)
    want = wanted(site, "covariance")
    assert want is not None
    gram = want.gram()
    y = rng.standard_normal((500, 2, 32)) * np.array([1.0, 5.0])[:, None]
    gram.add(y)
    found = spectrum(site, "covariance", gram, 0.0)
    for group in range(2):
        values, vectors = np.linalg.eigh(np.cov(y[:, group].T, bias=True))
        own = found.basis[group] * np.sign((found.basis[group] * vectors[:, ::-1]).sum(axis=0))
        np.testing.assert_allclose(own, vectors[:, ::-1], atol=1e-6)
        assert values[-1] > 0


def test_a_layer_that_gives_nothing_but_zeros_has_a_spectrum_without_nan() -> None:
    site = site_of(24, 40, bias=False)
    gram = moments_of(site, np.zeros((50, 40)), "covariance")
    found = spectrum(site, "covariance", gram, 0.1)
    assert np.isfinite(found.basis).all()
    assert np.isfinite(found.energies).all()
