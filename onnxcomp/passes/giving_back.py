"""Which units of a plan become whole again when a gate fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxcomp.passes.base import Evidence

SAFETY = 0.7
"""Share of the allowed error that a relaxed plan aims at: losses of units do not add up exactly."""

LEAST = 0.1
"""Share of the predicted loss that is given back at least, so that few attempts are needed."""


def given_back(losses: Mapping[str, float], evidence: Evidence[Any]) -> list[str] | None:
    """The units with the largest losses, so many that the rest may pass; None when none would be left changed.

    Args:
        losses: Predicted loss of each unit that is changed.
    """
    cut = sorted(losses, key=lambda name: -losses[name])
    if not cut or evidence.failed not in ("fidelity", "latency"):
        return None
    total = sum(losses.values())
    share = SAFETY * evidence.allowed / evidence.error if evidence.error > 0 else 0.5
    goal = total * min(share, 1 - LEAST)
    restored: list[str] = []
    for name in cut:
        if restored and total <= goal:
            break
        total -= losses[name]
        restored.append(name)
    return restored if len(restored) < len(cut) else None
