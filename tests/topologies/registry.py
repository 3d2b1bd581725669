"""The topologies by name: a builder registers itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

Builder = Callable[[], ir.Model]


@dataclass(frozen=True)
class Topology:
    """A model to prune.

    Args:
        build: Makes it; the same model each time.
        exact: Removing channels equals zeroing their weights. False where a statistic over the pruned axis (a norm, a
            mean over channels) changes by definition, or where activations are contracted with activations and a
            channel without weights isn't 0 there (sigmoid(0) · sigmoid(0)).
        tolerance: How far two ways to compute an output may lie apart, relative to its largest value: float32 rounding
            with sums in another order; more where a rounding to float16 or to integers can fall the other way.
    """

    build: Builder
    exact: bool = True
    tolerance: float = 2e-5


TOPOLOGIES: dict[str, Topology] = {}


def topology(*, exact: bool = True, tolerance: float = 2e-5) -> Callable[[Builder], Builder]:
    """Registers a builder under its function's name."""

    def register(build: Builder) -> Builder:
        if build.__name__ in TOPOLOGIES:
            raise ValueError(f"two topologies are called {build.__name__}")
        TOPOLOGIES[build.__name__] = Topology(build, exact, tolerance)
        return build

    return register
