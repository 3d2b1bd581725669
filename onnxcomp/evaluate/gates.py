"""Gates: conditions that a step must meet to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan

from onnxcomp.report.structures import GateResult, MetricResult, OutputFidelity


@dataclass(frozen=True)
class Gates:
    """What is asked of a result; None means not asked.

    Args:
        min_cosine: Lowest mean cosine of any output.
        max_drop: Largest drop of the metric, in its own unit.
    """

    min_cosine: float | None = None
    max_drop: float | None = None

    def check(self, fidelity: Sequence[OutputFidelity], metric: MetricResult | None) -> tuple[GateResult, ...]:
        """One result for each gate that is set and can be judged."""
        results = []
        if self.min_cosine is not None and fidelity:
            worst = min(fidelity, key=lambda f: -inf if isnan(f.cosine) else f.cosine)
            results.append(
                GateResult(
                    name=f"cosine of {worst.output}",
                    wanted=f"≥ {self.min_cosine:g}",
                    value=worst.cosine,
                    passed=worst.cosine >= self.min_cosine,
                )
            )
        if self.max_drop is not None and metric is not None:
            # A drop of exactly the limit is allowed: 0.01 of 1,000 images must not fail by rounding.
            passed = metric.drop <= self.max_drop + 1e-9
            results.append(
                GateResult(
                    name=f"drop of {metric.name}", wanted=f"≤ {self.max_drop:g}", value=metric.drop, passed=passed
                )
            )
        return tuple(results)
