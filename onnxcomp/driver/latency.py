"""Latency of models beside each other, as the report shows it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import onnx_ir as ir

from onnxcomp.calibration.readers import Feed
from onnxcomp.driver.clock import Clock
from onnxcomp.driver.workbench import Workbench
from onnxcomp.report.structures import Benchmark, Latency
from onnxcomp.runtime import benchmark
from onnxcomp.runtime.session import Session, SessionConfig, open_session

PERCENT = 100


def measure(
    models: Mapping[str, ir.Model | bytes | Path],
    feed: Feed,
    config: SessionConfig,
    clock: Clock,
    *,
    min_seconds: float,
    attempts: int,
    keep_samples: bool = False,
) -> Benchmark:
    """Times the models in turns on one feed, longer if the result is unstable.

    Args:
        models: By name; speed-ups are over the first.
        feed: One call.
        config: Provider and threads.
        clock: Told the progress; its limit holds.
        min_seconds: Of the first attempt.
        attempts: Measurements at most, each twice as long as the one before, until the result is stable.
        keep_samples: Put the raw samples into the result.
    """
    config = config.interleaved()
    with ExitStack() as stack:
        sessions: dict[str, Session] = {
            name: stack.enter_context(open_session(m, config)) for name, m in models.items()
        }
        result = benchmark.measure_stable(
            {name: session.runner(feed) for name, session in sessions.items()},
            attempts=attempts,
            min_seconds=min_seconds,
            max_seconds=max(20.0, 6 * min_seconds),
            progress=lambda share: clock.report("measuring latency", int(share * PERCENT), PERCENT),
        )
        providers = next(iter(sessions.values())).effective_providers
    names = list(models)
    unstable = result.unstable()
    return Benchmark(
        provider_requested=config.provider,
        providers_effective=providers,
        threads=config.threads,
        shapes={name: tuple(array.shape) for name, array in feed.items()},
        latency={name: _latency(result, name, keep_samples) for name in names},
        speedup={name: result.ratio(names[0], name) for name in names[1:]},
        interval={name: result.ratio_interval(names[0], name) for name in names[1:]},
        verdict="UNSTABLE" if unstable else "VALID",
        reason="; ".join(f"{name}: {result.verdict(name).reason}" for name in unstable),
    )


def versus(bench: Workbench, before: ir.Model, after: ir.Model, min_seconds: float) -> Benchmark:
    """Two models of a job on its typical feed, as "before" and "after"."""
    models = {"before": before, "after": after}
    return measure(models, bench.feed, bench.context.session, bench.clock, min_seconds=min_seconds, attempts=3)


def _latency(result: benchmark.Benchmark, name: str, keep_samples: bool) -> Latency:
    stats = result.stats(name)
    return Latency(
        minimum=stats.minimum,
        p10=stats.p10,
        median=stats.median,
        p90=stats.p90,
        p99=stats.p99,
        cov=stats.cov,
        rounds=stats.rounds,
        samples_ms=tuple(result.samples_ms[name]) if keep_samples else (),
    )
