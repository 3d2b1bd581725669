"""The options that every model verb shares, as data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from onnxcomp.errors import UsageError
from onnxcomp.passes.base import Progress, no_progress
from onnxcomp.report.text import complaint, meant, printable

Goal = Literal["balanced", "latency", "size"]
Ep = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Options:
    """What a user may ask for; names and defaults as on the command line.

    Args:
        calibration: Feeds to learn from: a SPEC, a path, or any source of feeds that `as_reader` takes.
        eval: Feeds to judge by; default: the last fifth of the calibration feeds.
        metric: Name of a metric on labels; default: top1 where the evaluation feeds have labels.
        max_drop: Largest drop of the metric, in its own unit.
        min_cosine: Lowest mean cosine of each output.
        target: Machine that the result is for; auto: this one.
        ep: Execution provider that measures.
        goal: What `optimize` may trade.
        only: Globs of node names or operator types to touch; `exclude`: to leave alone.
        shape: Sizes of dynamic inputs, by input name or symbol; `fix_shape` makes them static in the result.
        recipe: Path of a recipe, or the name of a shipped one; None: the default one.
        prune: Share of the multiply-accumulates that `optimize` may leave by pruning channels, or "auto": the largest
            cut that passes the gates. None: channels stay.
        factorize: Share of the multiply-accumulates that `optimize` may leave by low-rank factorisation, or "auto": the
            lowest that passes the gates. None: layers stay whole.
        sensitivity: File of what each unit loses in INT8 and gains in time, for steps that quantise.
        portable: Only standard operators in the result.
        threads: Intra-op threads; 0: the physical cores.
        seed: For random feeds.
        time_limit: Seconds for the whole job; None: no limit.
        custom_ops: Libraries with custom operators.
        progress: Called with (stage, done, total).
    """

    calibration: object | None = None
    eval: object | None = None
    metric: str | None = None
    max_drop: float | None = None
    min_cosine: float | None = None
    target: str = "auto"
    ep: Ep = "cpu"
    goal: Goal = "balanced"
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    shape: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    fix_shape: bool = False
    recipe: str | os.PathLike[str] | None = None
    prune: float | str | None = None
    factorize: float | str | None = None
    sensitivity: str | os.PathLike[str] | None = None
    portable: bool = False
    threads: Annotated[int, Field(ge=0)] = 0
    seed: int = 0
    time_limit: Annotated[float, Field(gt=0)] | None = None
    custom_ops: tuple[Path, ...] = ()
    progress: Progress = no_progress


def options_of(calibration: object | None, eval: object | None, options: Mapping[str, Any]) -> Options:
    """Options by keyword.

    Raises:
        UsageError: One is unknown (suggests the nearest), or is not of its kind.
    """
    known = {f.name for f in fields(Options)}
    for name in options:
        if name not in known:
            raise UsageError(f"unknown option {name!r}", hint=meant(name, known))
    try:
        return TypeAdapter(Options).validate_python({**options, "calibration": calibration, "eval": eval})
    except ValidationError as error:
        first = error.errors()[0]
        told = f"option {first['loc'][0]!r} is {printable(repr(first['input']))}: {complaint(first['msg'])}"
        raise UsageError(told) from None
