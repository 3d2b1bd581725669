"""Measurements that take no time, for tests of what happens around them."""

from __future__ import annotations

import pytest

from onnxcomp.runtime import benchmark


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts every measurement of latency to a moment."""
    measure = benchmark.measure_stable

    def hasty(*args: object, **options: object) -> object:
        return measure(*args, **{**options, "attempts": 1, "min_seconds": 0.01, "max_seconds": 0.2})  # type: ignore[arg-type]

    monkeypatch.setattr(benchmark, "measure_stable", hasty)
