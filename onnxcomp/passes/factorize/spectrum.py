"""Which directions of a layer's output are worth keeping: eigenvectors of a matrix K of its output space.

With W [out, columns] and V_r the first r eigenvectors of K, the layer W·x + b becomes V_r·(V_rᵀ·W)·x + b'. One formula,
three choices of K = W·C·Wᵀ:

* covariance: C = Cov(x) + λI, λ = α·tr Cov(y) / tr W·Wᵀ. K = Cov(y) + λ·W·Wᵀ. For α = 0 this is the optimum: no other
  matrix of rank r is closer on these rows, and what is lost is the tail of the eigenvalues of Cov(y) (output PCA; the
  same as SVD-LLM's Cholesky whitening, Wang et al. 2024, and as DRONE, Chen et al. 2021). α → ∞ gives the plain SVD.
* asvd: C = diag E[x²] (Yuan et al. 2023: ASVD, with the root mean square as the scale).
* svd: C = I (Eckart and Young 1936).

b' = b + (1 − V_r·V_rᵀ)·W·E[x] makes up for the mean of what is lost. Where no bias can be stored, moments about zero
take the place of the covariance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxcomp.calibration.gram import Gram, Moments
from onnxcomp.calibration.second_moments import Wanted
from onnxcomp.ops.linear import Array
from onnxcomp.passes.factorize.config import Method
from onnxcomp.passes.factorize.sites import Site

ROWS, ROWS_PER_COLUMN = 10_000, 20
"""Rows of second moments: at least so many for each column, and in all."""


@dataclass(frozen=True)
class Spectrum:
    """Directions of the outputs of one weight, the most important first.

    Args:
        basis: V, float64 [groups, out, k], orthonormal columns.
        shares: float64 [k]: share of the energy along each direction, over all groups; of Cov(y), or of K where there
            is no data.
        mean: W·E[x], float64 [groups, out]: what the bias has to make up for; zeros where it can't.
        rows: Rows that the moments are of; 0 without data.
    """

    basis: Array
    shares: Array
    mean: Array
    rows: int = 0

    @property
    def energies(self) -> Array:
        """float64 [k + 1]: the share of the energy that rank 0, 1, … keeps."""
        return np.concatenate([[0.0], np.minimum(np.cumsum(self.shares), 1.0)])

    def factors(self, weight: Array, rank: int) -> tuple[Array, Array, Array]:
        """P = QᵀV_rᵀ·W, U = V_r·Q and the shift of the bias (1 − V_r·V_rᵀ)·mean.

        Q is a rotation that gives all of the `rank` channels between the factors about the same variance, which is what
        a common scale (INT8) wants of them; it changes nothing else.

        Args:
            weight: W [groups, out, columns].

        Returns:
            [groups, rank, columns], [groups, out, rank], [groups, out].
        """
        kept = self.basis[:, :, :rank]
        shift = self.mean - np.einsum("gor,gpr,gp->go", kept, kept, self.mean, optimize=True)
        second = kept @ _mixing(rank)
        return np.swapaxes(second, 1, 2) @ weight, second, shift


def wanted(site: Site, method: Method) -> Wanted | None:
    """The moments that a method needs of a site; None for the plain SVD."""
    if method == "svd":
        return None
    if method == "asvd":
        return Wanted(site.views, "inputs", rows=ROWS, diagonal=True)
    _, out, columns = site.shape
    if _by_outputs(site):
        return Wanted(site.views, "outputs", rows=max(ROWS, ROWS_PER_COLUMN * out))
    return Wanted(site.views, "inputs", rows=max(ROWS, ROWS_PER_COLUMN * columns))


def _by_outputs(site: Site) -> bool:
    """Whether the moments of y are smaller than those of x, and those of W·x as well: nodes that share a weight may add
    different biases."""
    _, out, columns = site.shape
    return out <= columns and len(site.views) == 1


def spectrum(site: Site, method: Method, gram: Gram | None, alpha: float) -> Spectrum:
    """The directions of a site's outputs.

    Args:
        gram: As `wanted` asked for; None for svd.
        alpha: Regularisation of the covariance method.
    """
    weight = site.views[0].matrix()
    if gram is None:
        return plain(weight)
    moments = gram.moments(centred=site.can_bias and method == "covariance")
    if method == "asvd":
        scales = np.sqrt(moments.xx.reshape(weight.shape[0], 1, weight.shape[2]))
        return _with_rows(plain(weight * scales), gram.count)
    if _by_outputs(site):
        return _of_outputs(weight, moments, alpha, site.views[0].offset())
    return _of_inputs(weight, moments, alpha)


def plain(weight: Array) -> Spectrum:
    """Eigenvectors of W·Wᵀ, for each group; of a tall W, its left singular vectors."""
    groups, out, columns = weight.shape
    if out <= columns:
        values, basis = _descending(weight @ np.swapaxes(weight, 1, 2))
    else:
        basis, singular, _ = np.linalg.svd(weight, full_matrices=False)
        values, basis = singular**2, _signed(basis)
    return Spectrum(basis, _shares(values), np.zeros((groups, out)))


def _of_outputs(weight: Array, moments: Moments, alpha: float, offset: Array | None) -> Spectrum:
    """From the moments of y: nothing is as large as columns × columns."""
    cov = moments.xx
    k = cov
    if alpha:
        own = weight @ np.swapaxes(weight, 1, 2)
        k = cov + alpha * _ratio(_trace(cov), _trace(own))[:, None, None] * own
    _, basis = _descending(k)
    caught = np.einsum("gok,gok->gk", basis, cov @ basis)
    mean = np.zeros(weight.shape[:2])
    if moments.centred:
        mean = moments.mean_x - (0.0 if offset is None else offset.reshape(mean.shape))
    return Spectrum(basis, _shares(caught), mean, moments.count)


def _of_inputs(weight: Array, moments: Moments, alpha: float) -> Spectrum:
    """From the moments of x: K = W·S·(W·S)ᵀ, S·Sᵀ = Cov(x) + λI."""
    cov = moments.xx
    energy = np.einsum("goc,god,gcd->g", weight, weight, cov, optimize=True)
    level = alpha * _ratio(energy, np.einsum("goc,goc->g", weight, weight))
    values, vectors = np.linalg.eigh(cov)
    root = vectors * np.sqrt(np.maximum(values + level[:, None], 0.0))[:, None, :]
    basis = _signed(np.linalg.svd(weight @ root, full_matrices=False)[0])
    inner = np.swapaxes(basis, 1, 2) @ weight
    caught = np.einsum("gkc,gkc->gk", inner @ cov, inner)
    mean = np.einsum("goc,gc->go", weight, moments.mean_x) if moments.centred else np.zeros(weight.shape[:2])
    return Spectrum(basis, _shares(caught), mean, moments.count)


def _with_rows(found: Spectrum, rows: int) -> Spectrum:
    return Spectrum(found.basis, found.shares, found.mean, rows)


def _descending(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors of symmetric matrices, the largest first."""
    values, vectors = np.linalg.eigh(matrix)
    return values[:, ::-1], _signed(vectors[:, :, ::-1])


def _signed(basis: Array) -> Array:
    """The largest entry of each column made positive, so that the same directions are the same numbers."""
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=1)[:, None, :], axis=1)
    return np.asarray(basis * np.where(largest < 0, -1.0, 1.0))


def _shares(values: Array) -> Array:
    """[groups, k] energies -> [k] shares of all groups together."""
    together = np.maximum(values, 0.0).sum(axis=0)
    total = float(together.sum())
    return np.asarray(together / total) if total > 0 else np.eye(1, len(together))[0]


def _trace(matrix: Array) -> Array:
    return np.asarray(np.einsum("gii->g", matrix))


def _ratio(a: Array, b: Array) -> Array:
    return np.asarray(np.divide(a, b, out=np.zeros_like(a), where=b > 0))


def _mixing(rank: int) -> Array:
    """The orthonormal discrete cosine transform [rank, rank]: each direction is spread over all channels."""
    k, i = np.arange(rank)[:, None], np.arange(rank)[None, :]
    matrix = np.sqrt(2.0 / rank) * np.cos(np.pi * k * (2 * i + 1) / (2 * rank))
    matrix[0] /= np.sqrt(2.0)
    return np.asarray(matrix)
