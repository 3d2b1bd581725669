"""Which steps are kept: the rule of the gates on latency and size."""

from __future__ import annotations

import pytest

from onnxcomp.driver.steps import decide
from onnxcomp.report.structures import Benchmark


def timing(speedup: float, verdict: str = "VALID", *, low: float | None = None, high: float | None = None) -> Benchmark:
    return Benchmark(
        provider_requested="cpu",
        providers_effective=("CPUExecutionProvider",),
        threads=1,
        shapes={},
        latency={},
        speedup={"after": speedup},
        interval={"after": (speedup * 0.99 if low is None else low, speedup * 1.01 if high is None else high)},
        verdict=verdict,
        reason="noise" if verdict == "UNSTABLE" else "",
    )


@pytest.mark.parametrize(
    ("speedup", "shrink", "goal", "kept"),
    [
        (1.5, 3.9, "balanced", True),
        (0.98, 3.9, "balanced", True),  # as fast within the tolerance, and smaller
        (0.96, 3.9, "balanced", False),  # slower
        (1.02, 1.02, "balanced", False),  # neither faster nor smaller by 3 %
        (1.04, 0.9, "balanced", True),  # larger but faster
        (1.02, 3.9, "latency", False),  # must be faster
        (1.03, 1.0, "latency", True),
        (0.5, 3.9, "size", True),  # may be slower
        (2.0, 1.0, "size", False),  # must be smaller
    ],
)
def test_a_step_is_kept_by_the_rule_of_its_goal(speedup, shrink, goal, kept):
    assert decide(timing(speedup), shrink, goal, exact=False, measurable=True)[0] is kept


def test_speed_alone_is_a_gain_only_if_all_of_its_interval_is():
    assert decide(timing(1.05, low=1.01), 1.0, "balanced", exact=False, measurable=True)[0]
    assert not decide(timing(1.05, low=0.98), 1.0, "balanced", exact=False, measurable=True)[0]


def test_an_exact_rewrite_needs_no_gain_but_must_not_be_slower():
    assert decide(timing(1.0), 1.0, "balanced", exact=True, measurable=True)[0]
    assert decide(timing(0.96, high=0.99), 1.0, "balanced", exact=True, measurable=True)[0], "this may be noise"
    assert not decide(timing(0.9, high=0.94), 1.0, "balanced", exact=True, measurable=True)[0]


def test_an_unstable_measurement_keeps_a_step_for_its_size_only_and_says_so():
    kept, why = decide(timing(1.4, "UNSTABLE"), 3.9, "balanced", exact=False, measurable=True)
    assert kept
    assert "latency not proven" in why
    assert not decide(timing(1.4, "UNSTABLE"), 1.0, "balanced", exact=False, measurable=True)[0]
    assert not decide(timing(1.4, "UNSTABLE"), 3.9, "latency", exact=False, measurable=True)[0]


def test_an_unstable_measurement_that_is_slower_over_its_whole_interval_is_not_kept():
    assert not decide(timing(0.6, "UNSTABLE", high=0.8), 3.9, "balanced", exact=False, measurable=True)[0]


def test_for_another_machine_only_size_counts_and_latency_is_called_unverified():
    kept, why = decide(timing(0.5), 3.9, "balanced", exact=False, measurable=False)
    assert kept
    assert "unverified" in why
