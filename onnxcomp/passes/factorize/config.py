"""Options of the pass."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from onnxcomp.passes.latency_rounds import Latency, one_budget
from onnxcomp.report.structures import Record

Method = Literal["covariance", "asvd", "svd"]
Refitting = Literal["least-squares", "none"]
DEFAULT_ENERGY = 0.98
WITH_DATA: frozenset[Method] = frozenset({"covariance", "asvd"})


class FactorizeConfig(Record):
    """How far to factorise, and how. At most one of `energy`, `params`, `macs` and `latency`.

    Args:
        energy: Share of the output's variance that each factorised layer keeps at least.
        params, macs: Share of the model's parameters or multiply-accumulates that may remain.
        latency: Share of the latency that may remain, or milliseconds: 0.5 or "8ms".
        method: Whose directions are kept: of the outputs' covariance, of the weight scaled by the inputs' magnitudes
            (asvd), of the weight alone (svd). auto: covariance with calibration data, svd without.
        alpha: Regularisation of the covariance: share of its trace that the weight's own directions get.
        refit: What happens to the second factors, and to the layers left dense; auto: least-squares with the
            covariance method, none otherwise.
        round_to: Ranks are multiples of it; auto: what the target's kernels want.
        allow_slower: Factorise also layers whose two parts measure slower than the whole.
    """

    kind: Literal["factorize"] = Field(default="factorize", alias="pass")
    energy: float | None = Field(default=None, gt=0, le=1)
    params: float | None = Field(default=None, gt=0, le=1)
    macs: float | None = Field(default=None, gt=0, le=1)
    latency: Latency = None
    method: Method | Literal["auto"] = "auto"
    alpha: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    refit: Refitting | Literal["auto"] = "auto"
    round_to: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    allow_slower: bool = False

    model_config = Record.model_config | {"populate_by_name": True}

    @model_validator(mode="after")
    def _one_budget(self) -> FactorizeConfig:
        one_budget(self, "energy", "params", "macs", "latency")
        return self

    def kept_energy(self) -> float | None:
        """The threshold on energy; None when another budget decides."""
        if (self.params, self.macs, self.latency) != (None, None, None):
            return None
        return DEFAULT_ENERGY if self.energy is None else self.energy

    def chosen(self, has_data: bool) -> Method:
        if self.method == "auto":
            return "covariance" if has_data else "svd"
        return self.method

    def refitting(self, has_data: bool) -> Refitting:
        if self.refit == "auto":
            return "least-squares" if self.chosen(has_data) == "covariance" else "none"
        return self.refit

    def needs_data(self) -> tuple[str, ...]:
        """What was asked for that can't be had without calibration feeds."""
        method = (f"method {self.method}",) if self.method in WITH_DATA else ()
        return method + ((f"refit {self.refit}",) if self.refit == "least-squares" else ())
