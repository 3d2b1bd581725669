from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict

import numpy as np
import pytest

from onnxcomp.runtime.benchmark import Benchmark, measure, measure_stable


class FakeMachine:
    """A clock that only moves when a model runs."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.log: list[str] = []

    def clock(self) -> int:
        return self.now_ns

    def model(self, name: str, milliseconds: Iterable[float]) -> Callable[[], None]:
        durations = itertools.cycle(milliseconds)

        def run() -> None:
            self.log.append(name)
            self.now_ns += round(next(durations) * 1e6)

        return run


def benchmark(**samples: Iterable[float]) -> Benchmark:
    return Benchmark({name: list(values) for name, values in samples.items()}, dict.fromkeys(samples, 1), min_rounds=20)


def test_a_model_twice_as_fast_has_the_ratio_two() -> None:
    machine = FakeMachine()
    runners = {"before": machine.model("before", [8.0]), "after": machine.model("after", [4.0])}
    result = measure(runners, clock=machine.clock)
    assert result.ratio("before", "after") == 2
    assert result.ratio_interval("before", "after") == (2, 2)
    assert {result.verdict(name).status for name in runners} == {"VALID"}


def test_rounds_go_on_until_both_the_rounds_and_the_seconds_are_reached() -> None:
    for milliseconds, rounds in ((10.0, 300), (500.0, 20)):
        machine = FakeMachine()
        result = measure({"a": machine.model("a", [milliseconds])}, clock=machine.clock)
        assert len(result.samples_ms["a"]) == rounds


def test_the_time_limit_ends_a_slow_measurement_and_the_verdict_says_so() -> None:
    machine = FakeMachine()
    result = measure({"a": machine.model("a", [4000.0])}, clock=machine.clock)
    assert len(result.samples_ms["a"]) == 8
    assert result.verdict("a").status == "UNSTABLE"
    assert result.verdict("a").reason == "8 rounds fitted into the time; 20 are needed"


def test_every_round_runs_every_candidate_once_and_begins_with_the_next_one() -> None:
    machine = FakeMachine()
    runners = {name: machine.model(name, [200.0]) for name in "abc"}
    measure(runners, warmup_seconds=0, warmup_runs=1, min_rounds=4, min_seconds=0.001, clock=machine.clock)
    assert "".join(machine.log) == "abc" + "abc" + "bca" + "cab" + "abc"


def test_each_candidate_warms_up_by_runs_and_by_time() -> None:
    for milliseconds, runs in ((100.0, 5), (400.0, 3)):
        machine = FakeMachine()
        measure({"a": machine.model("a", [milliseconds])}, min_rounds=1, min_seconds=0.001, clock=machine.clock)
        assert len(machine.log) - 1 == runs


def test_short_models_are_repeated_until_a_sample_lasts_a_millisecond_and_still_give_the_time_of_one_run() -> None:
    machine = FakeMachine()
    runners = {"short": machine.model("short", [0.03]), "long": machine.model("long", [3.0])}
    result = measure(runners, clock=machine.clock)
    assert result.repeats == {"short": 34, "long": 1}
    assert result.stats("short").median == pytest.approx(0.03)
    assert result.ratio("long", "short") == pytest.approx(100)


def test_noise_that_only_adds_time_changes_neither_ratio_nor_verdict() -> None:
    rng = np.random.default_rng(1)
    noise = 1 + np.where(rng.random(200) < 0.5, 0, rng.exponential(1.0, 200))
    result = benchmark(before=8 * noise, after=4 * np.roll(noise, 3))
    assert result.stats("before").cov > 0.3
    assert result.ratio("before", "after") == pytest.approx(2)
    assert result.verdict("before").status == "VALID"


def test_a_machine_that_slows_down_half_way_is_unstable() -> None:
    result = benchmark(a=[4.0] * 50 + [4.4] * 50, b=[2.0] * 100)
    assert result.verdict("a").status == "UNSTABLE"
    assert "4 ms in the first half and 4.4 ms in the second, 10% apart" in result.verdict("a").reason
    assert result.unstable() == ("a",)


def test_statistics_are_those_of_numpy() -> None:
    samples = np.random.default_rng(2).gamma(4, 1, 101)
    stats = benchmark(a=samples).stats("a")
    assert (stats.minimum, stats.rounds) == (samples.min(), 101)
    assert (stats.p10, stats.median, stats.p90, stats.p99) == tuple(np.percentile(samples, (10, 50, 90, 99)))
    assert stats.cov == pytest.approx(samples.std() / samples.mean())


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says_and_is_the_same_each_time() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(40):
        result = benchmark(before=2 + rng.exponential(0.2, 100), after=1 + rng.exponential(0.1, 100))
        low, high = result.ratio_interval("before", "after")
        assert low <= high
        covered += low <= 2 <= high
    assert covered >= 34  # 38 expected of 40
    assert result.ratio_interval("before", "after") == (low, high)


def test_pairing_cancels_what_slows_both_down_together() -> None:
    drift = 1 + 0.5 * np.sin(np.linspace(0, 20, 200)) ** 2
    low, high = benchmark(before=3 * drift, after=drift).ratio_interval("before", "after")
    assert low == pytest.approx(3)
    assert high == pytest.approx(3)


def test_an_unstable_measurement_is_repeated_for_twice_as_long_until_it_is_stable() -> None:
    machine = FakeMachine()
    drifting = itertools.chain([10.0] * 200, [12.0] * 200, itertools.repeat(12.0))
    result = measure_stable({"a": machine.model("a", drifting)}, clock=machine.clock)
    assert result.unstable() == ()
    assert len(result.samples_ms["a"]) == 500  # 6 s of 12 ms: the second attempt


def test_a_measurement_that_stays_unstable_is_given_back_after_the_last_attempt() -> None:
    machine = FakeMachine()
    growing = (1.001**i for i in itertools.count())
    assert measure_stable({"a": machine.model("a", growing)}, attempts=2, clock=machine.clock).unstable() == ("a",)


def test_progress_rises_to_one_and_the_result_goes_into_json() -> None:
    machine = FakeMachine()
    told: list[float] = []
    result = measure({"a": machine.model("a", [1 / 3])}, progress=told.append, clock=machine.clock)
    assert told == sorted(told)
    assert told[-1] == 1
    assert json.loads(json.dumps(asdict(result)))["samples_ms"]["a"][0] == 0.333333
