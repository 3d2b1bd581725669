"""Measurements that take no time, for tests of what happens around them."""

from __future__ import annotations

from math import prod

import pytest

from onnxcomp.report.structures import Benchmark
from onnxcomp.runtime import benchmark
from onnxcomp.runtime.cache import Cache
from onnxcomp.runtime.node_latency import NodeTable
from onnxcomp.runtime.node_spec import NodeSpec
from onnxcomp.runtime.session import SessionConfig


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts every measurement of latency to a moment."""
    measure = benchmark.measure_stable

    def hasty(*args: object, **options: object) -> object:
        return measure(*args, **{**options, "attempts": 1, "min_seconds": 0.01, "max_seconds": 0.2})  # type: ignore[arg-type]

    monkeypatch.setattr(benchmark, "measure_stable", hasty)


def nodes_timed_by_size(monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    """Nodes take as long as they have products of input and weight elements: no clock, no cache."""
    monkeypatch.setattr(module, "NodeTable", lambda config: NodeTable(config, Cache(None), _by_size))


def _by_size(spec: NodeSpec, config: SessionConfig) -> float:
    return 1e-3 + prod(float(prod(port.shape)) for port in spec.inputs[:2] if port is not None) / 1e6


def timing(speedup: float) -> Benchmark:
    """What a measurement would have found."""
    return Benchmark(
        provider_requested="cpu",
        providers_effective=("CPUExecutionProvider",),
        threads=1,
        shapes={},
        latency={},
        speedup={"after": speedup},
        interval={"after": (speedup * 0.99, speedup * 1.01)},
        verdict="VALID",
        reason="",
    )
