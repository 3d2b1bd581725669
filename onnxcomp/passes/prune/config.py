"""Options of the pass."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from onnxcomp.passes.latency_rounds import Latency, one_budget, parse_latency
from onnxcomp.passes.prune.budget import Budget, Scope
from onnxcomp.passes.prune.importance import WITH_DATA, Importance
from onnxcomp.passes.prune.plan import Refitting
from onnxcomp.report.structures import Record

DEFAULT_RATIO = 0.5

Multiple = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class PruneConfig(Record):
    """What to remove, and what to do with the rest. At most one of `ratio`, `macs`, `params` and `latency`.

    Args:
        ratio: Share of the channels to remove.
        macs, params: Share of the multiply-accumulates or parameters that may remain.
        latency: Share of the latency that may remain, or milliseconds: 0.5 or "8ms".
        importance: How channels are ranked; auto: obs with calibration data, l1 without.
        scope: Which cells compete: all (global), none (uniform), or those of equal structure (isomorphic).
        refit: What happens to the weights that stay; auto: least-squares with calibration data, none without.
        round_to: Kept channels are multiples of it; auto: what the target's kernels want.
        max_ratio: Largest share of one cell's channels that may go.
        ratios: Share to remove by glob of node names, for cells that these nodes make; before all other budgets. For a
            node the first pattern that matches holds, for a cell the smallest share of its nodes.
    """

    kind: Literal["prune"] = Field(default="prune", alias="pass")
    ratio: Share | None = None
    macs: float | None = Field(default=None, gt=0, le=1)
    params: float | None = Field(default=None, gt=0, le=1)
    latency: Latency = None
    importance: Importance | Literal["auto"] = "auto"
    scope: Scope = "global"
    refit: Refitting | Literal["auto"] = "auto"
    round_to: Multiple | Literal["auto"] = "auto"
    max_ratio: float | None = Field(default=None, gt=0, lt=1)
    ratios: dict[str, Share] = Field(default_factory=dict)

    model_config = Record.model_config | {"populate_by_name": True}

    @model_validator(mode="after")
    def _valid(self) -> PruneConfig:
        one_budget(self, "ratio", "macs", "params", "latency")
        return self

    def budget(self) -> Budget:
        """The budget that was asked for."""
        if self.macs is not None:
            return Budget("macs", self.macs)
        if self.params is not None:
            return Budget("params", self.params)
        if self.latency is not None:
            limit, absolute = parse_latency(self.latency)
            return Budget("latency", limit, absolute)
        if self.ratio is None and self.ratios:
            return Budget("ratio", 0.0)
        return Budget("ratio", DEFAULT_RATIO if self.ratio is None else self.ratio)

    def ranking(self, has_data: bool) -> Importance:
        if self.importance == "auto":
            return "obs" if has_data else "l1"
        return self.importance

    def refitting(self, has_data: bool) -> Refitting:
        if self.refit == "auto":
            return "least-squares" if has_data else "none"
        return self.refit

    def needs_data(self) -> tuple[str, ...]:
        """What was asked for that can't be had without calibration feeds."""
        importance = (f"importance {self.importance}",) if self.importance in WITH_DATA else ()
        return importance + ((f"refit {self.refit}",) if self.refit == "least-squares" else ())
