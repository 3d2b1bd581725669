"""Where the time of a call goes: ONNX Runtime's own profile, by node and by operator.

The profiler itself takes time with every kernel, so these figures are shares of a call; how long a call takes is what
`benchmark` measures.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import ModelError
from onnxcomp.runtime.session import Feed, SessionConfig, open_session
from onnxcomp.runtime.source import TemporaryFolder

WARM_UP = 3
"""Calls at the beginning that do not count."""

MOST_EVENTS = 400_000
"""Kernels of all calls together: the profiler drops events beyond a million."""

_KERNEL = "_kernel_time"
_MADE = re.compile(r"(_nchwc)?(_token_\d+)?$")
"""What ONNX Runtime appends to the names of nodes that it moves into its blocked layout, or makes of others."""


@dataclass(frozen=True)
class NodeTime:
    """A node of the graph that ONNX Runtime runs.

    Args:
        name: Without the suffix of a layout; a fused node bears the name of one of its parts.
        op_type: Of the kernel: QLinearConv where INT8 was fused, FusedMatMul, ReorderOutput.
        ms: Milliseconds of one call, the median over the calls; without what is inside its bodies (If, Loop, Scan).
    """

    name: str
    op_type: str
    ms: float


@dataclass(frozen=True)
class Profile:
    """Args: runs: calls that count; nodes: in the order of their first run."""

    runs: int
    nodes: tuple[NodeTime, ...]

    @property
    def total_ms(self) -> float:
        return sum(node.ms for node in self.nodes)

    def by_operator(self) -> dict[str, float]:
        """Milliseconds of one call by operator, the largest first."""
        sums: defaultdict[str, float] = defaultdict(float)
        for node in self.nodes:
            sums[node.op_type] += node.ms
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    def kernels(self) -> dict[str, int]:
        """Number of nodes by operator."""
        return dict(Counter(node.op_type for node in self.nodes))


def profile(
    model: ir.Model,
    feed: Feed,
    config: SessionConfig,
    *,
    runs: int = 50,
    max_seconds: float = 5.0,
) -> Profile:
    """Runs a model on one feed under ONNX Runtime's profiler; its file is deleted.

    Args:
        runs: Calls that count, at most.
        max_seconds: No call begins after so long; three count at least.

    Raises:
        ModelError: The model can't be run, or ONNX Runtime wrote no profile that can be read.
    """
    most = max(3, min(runs, MOST_EVENTS // max(1, len(model.graph))))
    with TemporaryFolder() as folder:
        prefix = Path(folder).absolute() / "profile"
        with open_session(model, replace(config, profile_prefix=prefix)) as session:
            start, done = time.monotonic(), 0
            while done < WARM_UP + 3 or (done < WARM_UP + most and time.monotonic() - start < max_seconds):
                session.run(feed)
                done += 1
            path = session.end_profiling()
        return summary(_events(path), WARM_UP)


def summary(events: Sequence[Mapping[str, Any]], warm_up: int) -> Profile:
    """A profile from the events of ONNX Runtime's file.

    Args:
        events: In any order.
        warm_up: Calls at the beginning to leave out.
    """
    starts = sorted(event["ts"] for event in events if event.get("name") == "model_run")
    counted = starts[warm_up:]
    kernels = sorted((e for e in events if _is_kernel(e)), key=lambda e: (e["ts"], -e["dur"]))
    times: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0] * len(counted))
    run = -1
    for event, own in _own_times(kernels):
        while run + 1 < len(counted) and counted[run + 1] <= event["ts"]:
            run += 1
        if run >= 0:
            facts = event["args"]
            times[event["name"], facts.get("op_name", ""), facts.get("node_index", "")][run] += own / 1e3
    nodes = (NodeTime(_plain(name), op, float(np.median(ms))) for (name, op, _), ms in times.items())
    return Profile(len(counted), tuple(nodes))


def _own_times(kernels: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], float]]:
    """Microseconds of each kernel without those of the kernels inside it; they are in order of their beginning."""
    open_ones: list[tuple[Mapping[str, Any], float, list[float]]] = []
    for event in kernels:
        while open_ones and open_ones[-1][1] <= event["ts"]:
            yield _closed(open_ones.pop())
        if open_ones:
            open_ones[-1][2].append(event["dur"])
        open_ones.append((event, event["ts"] + event["dur"], []))
    while open_ones:
        yield _closed(open_ones.pop())


def _closed(item: tuple[Mapping[str, Any], float, list[float]]) -> tuple[Mapping[str, Any], float]:
    event, _, inner = item
    return event, max(0.0, event["dur"] - sum(inner))


def _is_kernel(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "Node" and str(event.get("name", "")).endswith(_KERNEL)


def _plain(name: str) -> str:
    return _MADE.sub("", name.removesuffix(_KERNEL))


def _events(path: Path) -> list[Mapping[str, Any]]:
    try:
        found: list[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError) as error:
        raise ModelError(f"ONNX Runtime's profile can't be read: {error}") from error
    return found
