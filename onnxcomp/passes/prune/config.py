"""Options of the pass."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from onnxcomp.passes.prune.budget import Budget, Scope
from onnxcomp.passes.prune.importance import WITH_DATA, Importance
from onnxcomp.passes.prune.plan import Refitting
from onnxcomp.report.structures import Record

DEFAULT_RATIO = 0.5


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
        ratios: Share to remove by glob of node names, for cells that these nodes make; before all other budgets.
    """

    kind: Literal["prune"] = Field(default="prune", alias="pass")
    ratio: float | None = Field(default=None, ge=0, lt=1)
    macs: float | None = Field(default=None, gt=0, le=1)
    params: float | None = Field(default=None, gt=0, le=1)
    latency: float | str | None = None
    importance: Importance | Literal["auto"] = "auto"
    scope: Scope = "global"
    refit: Refitting | Literal["auto"] = "auto"
    round_to: int | Literal["auto"] = "auto"
    max_ratio: float | None = Field(default=None, gt=0, lt=1)
    ratios: dict[str, float] = Field(default_factory=dict)

    model_config = Record.model_config | {"populate_by_name": True}

    @model_validator(mode="after")
    def _valid(self) -> PruneConfig:
        given = [name for name in ("ratio", "macs", "params", "latency") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are two budgets; give one")
        if isinstance(self.round_to, int) and self.round_to < 1:
            raise ValueError("round_to is a number of channels, 1 or more")
        if self.latency is not None:
            parse_latency(self.latency)
        for pattern, share in self.ratios.items():
            if not 0 <= share < 1:
                raise ValueError(f"ratios.{pattern}: a share to remove lies between 0 and 1")
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

    def needs_data(self) -> bool:
        """Whether something was asked for that can't be had without calibration feeds."""
        return self.importance in WITH_DATA or self.refit == "least-squares"

    def fixed_by_user(self) -> bool:
        """The numbers are the user's: a result that is slower is kept, with a warning."""
        return self.latency is None


def parse_latency(text: float | str) -> tuple[float, bool]:
    """(number, whether it is milliseconds) of `0.5` or `8ms`.

    >>> parse_latency("8ms"), parse_latency("0.5")
    ((8.0, True), (0.5, False))
    """
    word = str(text).strip().lower()
    absolute = word.endswith("ms")
    try:
        number = float(word.removesuffix("ms"))
    except ValueError:
        number = -1.0
    if number <= 0 or (not absolute and number > 1):
        raise ValueError(f"latency {text!r} is neither a share that may remain (0.5) nor milliseconds (8ms)")
    return number, absolute
