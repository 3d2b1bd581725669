"""A latency that was asked for: planned with a table of single nodes, measured on the whole model, planned again.

The table knows nothing of fusions and of conversions between layouts; two or three rounds in which the changed model
really runs make up for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated, Generic, TypeVar

import onnx_ir as ir
from pydantic import AfterValidator, BaseModel

from onnxcomp.evaluate.allocation import Fit
from onnxcomp.passes.base import Context
from onnxcomp.runtime import benchmark
from onnxcomp.runtime.session import open_session

ROUNDS = 4
SECONDS = 1.5
EACH_SECONDS = 0.3
NEAR = 0.05
"""A round that meets the limit and overshoots it by less than this is good enough."""

T = TypeVar("T")
Measure = Callable[[ir.Model, ir.Model, Context], tuple[float, float]]
"""Two models in turns -> their 10th percentiles, milliseconds."""


@dataclass(frozen=True)
class Proposal(Generic[T]):
    """What could be done.

    Args:
        choice: What; `key` tells it from others, so that nothing is tried twice.
        modelled: Its cost by the table, milliseconds.
        loss: Predicted.
        build: Makes the model.
    """

    choice: T
    key: object
    modelled: float
    loss: float
    build: Callable[[], ir.Model]


@dataclass
class Rounds(Generic[T]):
    """What was tried, each with the milliseconds that it measured; the best of it, None if nothing was tried."""

    limit: float
    tried: list[tuple[Proposal[T], float]] = field(default_factory=list)

    @property
    def best(self) -> tuple[Proposal[T], float] | None:
        """Of the rounds that meet the limit the one with the least loss; else the fastest."""
        met = [entry for entry in self.tried if entry[1] <= self.limit]
        if met:
            return min(met, key=lambda entry: entry[0].loss)
        return min(self.tried, key=lambda entry: entry[1], default=None)


def in_rounds(
    model: ir.Model,
    modelled: float,
    whole: float,
    limit: float,
    propose: Callable[[Fit], Proposal[T] | None],
    ctx: Context,
    measure: Measure,
) -> Rounds[T]:
    """Proposes, builds and measures until the limit is met closely, or nothing new is proposed.

    Args:
        model: The original, that is measured beside each proposal; `modelled`: its cost by the table, `whole`: as
            measured.
        limit: Milliseconds of the whole model.
        propose: What to do when costs of the table become those of the whole model by this fit.
    """
    points: list[tuple[float, float]] = [(modelled, whole)]
    rounds: Rounds[T] = Rounds(limit)
    for number in range(ROUNDS):
        proposal = propose(Fit.of(points))
        if proposal is None or any(earlier.key == proposal.key for earlier, _ in rounds.tried):
            break
        ctx.progress("measuring latency", number, ROUNDS)
        before, after = measure(model, proposal.build(), ctx)
        milliseconds = whole * after / before
        rounds.tried.append((proposal, milliseconds))
        points.append((proposal.modelled, milliseconds))
        if limit * (1 - NEAR) <= milliseconds <= limit:
            break
    return rounds


def measured(tried: Sequence[tuple[object, float]], whole: float) -> dict[str, float]:
    """The measurements by what they are of, for a plan."""
    return {"original": whole} | {f"round {i + 1}": milliseconds for i, (_, milliseconds) in enumerate(tried)}


def two_latencies(one: ir.Model, other: ir.Model, ctx: Context) -> tuple[float, float]:
    """10th percentiles of two models in turns, milliseconds."""
    config = ctx.session.interleaved()
    with open_session(one, config) as first, open_session(other, config) as second:
        runners = {"one": first.runner(ctx.feed), "other": second.runner(ctx.feed)}
        result = benchmark.measure_stable(runners, min_seconds=SECONDS, max_seconds=10 * SECONDS)
    return result.stats("one").p10, result.stats("other").p10


def relative_latencies(base: ir.Model, others: Sequence[ir.Model], ctx: Context) -> list[float]:
    """10th percentiles of models over that of `base`, all measured in turns; about a third of a second for each."""
    config = ctx.session.interleaved()
    with ExitStack() as stack:
        sessions = [stack.enter_context(open_session(model, config)) for model in (base, *others)]
        runners = {str(i): session.runner(ctx.feed) for i, session in enumerate(sessions)}
        seconds = EACH_SECONDS * len(runners)
        result = benchmark.measure_stable(
            runners, attempts=2, warmup_seconds=0.05, min_seconds=seconds, max_seconds=4 * seconds
        )
    return [result.stats(str(i + 1)).p10 / result.stats("0").p10 for i in range(len(others))]


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
    if not 0 < number < math.inf or (not absolute and number > 1):
        raise ValueError(f"{text!r} is neither a share that may remain (0.5) nor milliseconds (8ms)")
    return number, absolute


def _checked(latency: float | str | None) -> float | str | None:
    if latency is not None:
        parse_latency(latency)
    return latency


Latency = Annotated[float | str | None, AfterValidator(_checked)]
"""A latency that may remain, in a config: what `parse_latency` takes."""


def one_budget(config: BaseModel, *names: str) -> None:
    """At most one of the budgets is given.

    Raises:
        ValueError: Two or more are.
    """
    given = [name for name in names if getattr(config, name) is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are two budgets; give one")
