"""The choice for one node: least squares, a scale and a bias, a bias, or what was there; held-out rows decide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxcomp.calibration.gram import Gram, Moments
from onnxcomp.refit.flat import Rows, solve_flat
from onnxcomp.refit.solve import best_bias, error, ridge

Array = np.ndarray

LEVELS = ("least squares", "moments", "scale and bias", "bias", "as it was")


@dataclass(frozen=True)
class Fit:
    """The weights chosen for a node.

    Args:
        weights: [groups, out, columns]; `bias`: [groups, out], None for a node that can't have one.
        level: What most of the outputs got.
        strength: λ of the least squares, relative to the mean diagonal.
        before: Held-out squared error over the variance of the targets, with the weights as they were; `after` with
            those chosen.
    """

    weights: Array
    bias: Array | None
    level: str
    strength: float
    before: float
    after: float

    @property
    def better(self) -> bool:
        return self.after < self.before


def fit(
    seen: Gram, held: Gram, weights: Array, bias: Array, *, can_bias: bool, strengths: tuple[float, ...], match: bool
) -> Fit:
    """Chooses for each output by its error on the held-out rows; one λ for all outputs.

    Args:
        seen: Moments to fit on; `held`: to choose by.
        weights: As they were, [groups, out, columns]; `bias` [groups, out].
        strengths: λ to try, as shares of the mean diagonal.
        match: Match mean and variance of the targets instead of least squares (one column only).
    """
    train, test = seen.moments(centred=can_bias), held.moments(centred=can_bias)
    options: list[tuple[str, Array]] = [("as it was", weights)]
    if can_bias:
        options.append(("bias", weights))
    options.append(("scale and bias", _scaled(train, weights)))
    strength = 0.0
    if match:
        options[-1] = ("moments", _matched(train, weights))
    elif weights.shape[2] > 1:
        solved = {s: ridge(train, weights, s * _scarcity(train)) for s in strengths}
        sums = {s: float(error(test, w, best_bias(train, w) if can_bias else None).sum()) for s, w in solved.items()}
        strength = min(sums, key=lambda s: (sums[s], -s))
        options.append(("least squares", solved[strength]))
    biases = [bias if name == "as it was" else best_bias(train, w) for name, w in options]
    if not can_bias:
        biases = [bias] * len(options)
    errors = _comparable([error(test, w, b if can_bias else None) for (_, w), b in zip(options, biases, strict=True)])
    best = errors.argmin(axis=0)
    chosen_w = np.take_along_axis(np.stack([w for _, w in options]), best[None, :, :, None], axis=0)[0]
    chosen_b = np.take_along_axis(np.stack(biases), best[None], axis=0)[0]
    scale = max(float(test.yy.sum()), np.finfo(np.float64).tiny)
    level = options[int(np.bincount(best.ravel(), minlength=len(options)).argmax())][0]
    after = float(errors.min(axis=0).sum()) / scale
    return Fit(chosen_w, chosen_b if can_bias else None, level, strength, float(errors[0].sum()) / scale, after)


def fit_flat(found: Fit, seen: Gram, train: Rows, test: Rows, weights: Array, bias: Array) -> Fit:
    """The same choice once more by what the activation lets through, with one more candidate: the fit to just that.

    Args:
        found: What `fit` chose on all values.
        seen: Moments of the rows `train`; `test`: the rows to choose by.
        weights: As they were; `bias` likewise.
    """
    assert found.bias is not None
    moments = seen.moments(centred=True)
    strength = found.strength * _scarcity(moments)
    start = ridge(moments, weights, strength) if weights.shape[2] > 1 else found.weights
    options = [
        (weights, bias),
        (found.weights, found.bias),
        solve_flat(train, moments, start, best_bias(moments, start), weights, strength),
    ]
    errors = _comparable([test.error(w, b) for w, b in options])
    best = errors.argmin(axis=0)
    scale = max(test.energy(), np.finfo(np.float64).tiny)
    names = ("as it was", found.level, "least squares")
    return Fit(
        np.take_along_axis(np.stack([w for w, _ in options]), best[None, :, :, None], axis=0)[0],
        np.take_along_axis(np.stack([b for _, b in options]), best[None], axis=0)[0],
        names[int(np.bincount(best.ravel(), minlength=3).argmax())],
        found.strength,
        float(errors[0].sum()) / scale,
        float(errors.min(axis=0).sum()) / scale,
    )


def _comparable(errors: list[Array]) -> Array:
    """[options, groups, out]: what overflowed is the worst of all, not (as for argmin) the best."""
    stacked = np.stack(errors)
    return np.where(np.isfinite(stacked), stacked, np.finfo(np.float64).max)


def _scarcity(moments: Moments) -> float:
    """Fewer than five rows for each unknown of an output: more ridge, in proportion."""
    return float(max(1.0, 5.0 * moments.xx.shape[1] / max(moments.count, 1)))


def _scaled(moments: Moments, weights: Array) -> Array:
    """s·W₀ with s = E[y·ŷ]/E[ŷ²] for each output, ŷ = W₀·x."""
    own = np.einsum("god,god->go", weights @ moments.xx, weights)
    both = np.einsum("god,god->go", moments.yx, weights)
    return weights * np.where(own > 0, both / np.where(own > 0, own, 1.0), 1.0)[:, :, None]


def _matched(moments: Moments, weights: Array) -> Array:
    """s·W₀ with the s that makes the variance that of the targets."""
    own = np.einsum("god,god->go", weights @ moments.xx, weights)
    return weights * np.where(own > 0, np.sqrt(moments.yy / np.where(own > 0, own, 1.0)), 1.0)[:, :, None]
