"""Honest latencies: candidates timed in turns, raw samples kept, ratios with their uncertainty, and a verdict.

Noise only adds time (another process, a lower clock), so the fast end of the samples is what the model itself costs:
ratios compare 10th percentiles. For the same reason a large coefficient of variation alone proves nothing about that
end; what makes a run UNSTABLE is that its two halves disagree about it.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

Runner = Callable[[], object]
Clock = Callable[[], int]
Progress = Callable[[float], None]

_SHORTEST_SAMPLE_NS = 1_000_000
_FAST_END = 10
_DRIFT = 0.05
_RESAMPLES = 1000
_LARGEST_DRAW = 1_000_000


@dataclass(frozen=True)
class LatencyStats:
    """Latency of one run in milliseconds.

    Args:
        minimum, p10, median, p90, p99, mean: Of the samples.
        cov: Coefficient of variation, standard deviation / mean.
        rounds: Number of samples.
    """

    minimum: float
    p10: float
    median: float
    p90: float
    p99: float
    mean: float
    cov: float
    rounds: int


class Verdict(NamedTuple):
    """Whether the samples of one candidate can be trusted, and why."""

    status: Literal["VALID", "UNSTABLE"]
    reason: str


@dataclass(frozen=True)
class Benchmark:
    """The samples of one measurement.

    Args:
        samples_ms: For each candidate one number a round, milliseconds for one run; entry i of all candidates belongs
            to the same round.
        repeats: Runs that one sample is the mean of, so that it lasts a millisecond or more.
        min_rounds: Rounds that a verdict asks for.
    """

    samples_ms: dict[str, list[float]]
    repeats: dict[str, int]
    min_rounds: int

    def stats(self, name: str) -> LatencyStats:
        """The summary of one candidate."""
        samples = np.asarray(self.samples_ms[name])
        p10, median, p90, p99 = (float(p) for p in np.percentile(samples, (_FAST_END, 50, 90, 99)))
        mean = float(samples.mean())
        cov = float(samples.std()) / mean if mean else 0.0
        return LatencyStats(float(samples.min()), p10, median, p90, p99, mean, cov, len(samples))

    def ratio(self, before: str, after: str) -> float:
        """How many times faster `after` is: p10(before) / p10(after)."""
        return float(_ratio(np.asarray(self.samples_ms[before]), np.asarray(self.samples_ms[after])))

    def ratio_interval(self, before: str, after: str, *, confidence: float = 0.95) -> tuple[float, float]:
        """Confidence interval of `ratio`, by a paired circular block bootstrap with a fixed seed.

        Rounds are drawn in blocks of n^(1/3) neighbours, the same for both candidates: a slow second hits both, and
        several rounds. (Politis and Romano, "A circular block-resampling procedure for stationary data", 1992.)
        """
        a, b = np.asarray(self.samples_ms[before]), np.asarray(self.samples_ms[after])
        ratios = np.concatenate([_ratio(a[drawn], b[drawn]) for drawn in _resamples(len(a))])
        tail = 50 * (1 - confidence)
        low, high = np.percentile(ratios, (tail, 100 - tail))
        return float(low), float(high)

    def verdict(self, name: str) -> Verdict:
        """VALID when there are enough rounds and both halves of the run agree on the fast end within 5 %."""
        samples = np.asarray(self.samples_ms[name])
        if len(samples) < self.min_rounds:
            return Verdict("UNSTABLE", f"{len(samples)} rounds fitted into the time; {self.min_rounds} are needed")
        halves = np.array_split(samples, 2)
        first, second = (float(np.percentile(half, _FAST_END)) for half in halves)
        drift = abs(first - second) / min(first, second)
        if drift > _DRIFT:
            halves_ms = f"{first:.3g} ms in the first half and {second:.3g} ms in the second"
            return Verdict("UNSTABLE", f"the 10th percentile is {halves_ms}, {drift:.0%} apart")
        return Verdict("VALID", f"{len(samples)} rounds, both halves within {drift:.1%}")

    def unstable(self) -> tuple[str, ...]:
        """Names of the candidates whose verdict is UNSTABLE."""
        return tuple(name for name in self.samples_ms if self.verdict(name).status == "UNSTABLE")


def measure(
    runners: Mapping[str, Runner],
    *,
    warmup_seconds: float = 0.5,
    warmup_runs: int = 3,
    min_rounds: int = 20,
    min_seconds: float = 3.0,
    max_seconds: float = 30.0,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter_ns,
) -> Benchmark:
    """Times every runner once in each round, and begins each round with another one.

    Args:
        runners: Candidates by name.
        warmup_seconds, warmup_runs: Each runner warms up for at least both, but never longer than `max_seconds`.
        min_rounds, min_seconds: The rounds go on until both are reached,
        max_seconds: or this is over. All times are of all runners together, except the warm-up.
        progress: Told the share of the rounds that is done, from 0 to 1.
        clock: Nanoseconds, monotonic.
    """
    names = tuple(runners)
    with _no_garbage_collection():
        # Samples that last equally long meet equally many interruptions, whatever the runner.
        repeats = {
            name: max(1, math.ceil(_SHORTEST_SAMPLE_NS / fastest))
            for name, runner in runners.items()
            for fastest in [_warm_up(runner, warmup_seconds, warmup_runs, max_seconds, clock)]
        }
        samples: dict[str, list[float]] = {name: [] for name in names}
        start, rounds, share = clock(), 0, 0.0
        while share < 1:
            first = rounds % len(names)
            for name in names[first:] + names[:first]:
                samples[name].append(round(_time(runners[name], repeats[name], clock) / 1e6, 6))
            rounds += 1
            seconds = (clock() - start) / 1e9
            enough = min(_share(rounds, min_rounds), _share(seconds, min_seconds))
            share = 1.0 if seconds >= max_seconds else enough
            if progress is not None:
                progress(share)
    return Benchmark(samples, repeats, min_rounds)


def measure_stable(
    runners: Mapping[str, Runner],
    *,
    attempts: int = 3,
    warmup_seconds: float = 0.5,
    min_rounds: int = 20,
    min_seconds: float = 3.0,
    max_seconds: float = 30.0,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter_ns,
) -> Benchmark:
    """Measures again, each time for twice as long, while a verdict is UNSTABLE; gives the last measurement.

    Args:
        attempts: Measurements at most.
        warmup_seconds, min_rounds, min_seconds, max_seconds, progress, clock: Of the first measurement, as in
            `measure`.
    """
    for attempt in range(attempts):
        longer = 2**attempt
        result = measure(
            runners,
            warmup_seconds=warmup_seconds,
            min_rounds=min_rounds,
            min_seconds=min_seconds * longer,
            max_seconds=max_seconds * longer,
            progress=progress,
            clock=clock,
        )
        if not result.unstable():
            break
    return result


def _warm_up(runner: Runner, seconds: float, runs: int, max_seconds: float, clock: Clock) -> float:
    """Runs until warm; gives the fastest run in nanoseconds."""
    start, done, fastest = clock(), 0, math.inf
    while True:
        fastest = min(fastest, _time(runner, 1, clock))
        done += 1
        elapsed = (clock() - start) / 1e9
        if (done >= runs and elapsed >= seconds) or elapsed >= max_seconds:
            return max(1.0, fastest)


def _share(done: float, wanted: float) -> float:
    return 1.0 if done >= wanted else done / wanted


def _time(runner: Runner, repeat: int, clock: Clock) -> float:
    """Nanoseconds of one run, the mean of `repeat`."""
    start = clock()
    for _ in range(repeat):
        runner()
    return (clock() - start) / repeat


def _ratio(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Of the fast ends, along the last axis."""
    return np.asarray(np.percentile(before, _FAST_END, axis=-1) / np.percentile(after, _FAST_END, axis=-1))


def _resamples(rounds: int) -> Iterator[np.ndarray]:
    """Rounds to draw, [resamples, rounds], a bounded number of them at a time."""
    block = max(1, round(rounds ** (1 / 3)))
    blocks = math.ceil(rounds / block)
    at_a_time = max(1, _LARGEST_DRAW // rounds)
    rng = np.random.default_rng(0)
    for begin in range(0, _RESAMPLES, at_a_time):
        starts = rng.integers(0, rounds, size=(min(at_a_time, _RESAMPLES - begin), blocks, 1))
        yield ((starts + np.arange(block)) % rounds).reshape(len(starts), -1)[:, :rounds]


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
