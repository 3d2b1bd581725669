"""A look inside the original and a result: where their time goes, and where their values part."""

from __future__ import annotations

from itertools import islice

import onnx_ir as ir

from onnxcomp.driver.workbench import Workbench
from onnxcomp.errors import LimitError, OnnxcompError
from onnxcomp.evaluate.layers import compare_layers
from onnxcomp.model.save import weight_bytes
from onnxcomp.report.structures import KernelPair, LayerDifference, LayerPairs, NodeTime, Note, ProfilePair
from onnxcomp.runtime.profile import Profile, profile

LAYER_FEEDS = 4
"""Feeds on which the values inside are compared."""

PROFILE_SECONDS = 1.0
MOST_BYTES = 512 * 2**20
"""Weights of a model that is looked into for a report: each look loads it again."""

MOST_ENTRIES = 64
"""Slowest nodes and most distant values that a report holds."""


def look_inside(bench: Workbench, result: ir.Model) -> tuple[ProfilePair | None, LayerPairs | None]:
    """What a report says of the inside of `result`, cut to what matters; None where it can't be had or would take long.

    Raises:
        LimitError: The time is over.
    """
    if not bench.target_is_host or weight_bytes(bench.loaded.model) > MOST_BYTES:
        return None, None
    try:
        found = profiled(bench, result, PROFILE_SECONDS)
    except LimitError:
        raise
    except OnnxcompError as error:
        bench.notes.append(Note(level="info", sentence=f"operators were not profiled: {error.message}"))
        return None, None
    cut = {"nodes_a": found.nodes_a[:MOST_ENTRIES], "nodes_b": found.nodes_b[:MOST_ENTRIES]}
    values = values_apart(bench, result)
    if values is not None:
        values = values.model_copy(update={"layers": values.layers[:MOST_ENTRIES]})
    return found.model_copy(update=cut), values


def profiled(bench: Workbench, other: ir.Model, max_seconds: float = 5.0) -> ProfilePair:
    """Milliseconds of one call by kernel and by node, of the original and of `other`.

    Args:
        max_seconds: Of each of the two.
    """
    found: list[Profile] = []
    for model in (bench.loaded.model, other):
        bench.clock.report("profiling operators", len(found), 2)
        found.append(profile(model, bench.feed, bench.context.session, max_seconds=max_seconds))
    a, b = found
    times, counts = [p.by_operator() for p in found], [p.kernels() for p in found]
    kernels = [
        KernelPair(
            operator=name,
            nodes=(counts[0].get(name, 0), counts[1].get(name, 0)),
            ms=(times[0].get(name, 0.0), times[1].get(name, 0.0)),
        )
        for name in {**times[0], **times[1]}
    ]
    return ProfilePair(
        runs=(a.runs, b.runs),
        total_ms=(a.total_ms, b.total_ms),
        kernels=tuple(sorted(kernels, key=lambda k: (-max(k.ms), k.operator))),
        nodes_a=_nodes(a),
        nodes_b=_nodes(b),
    )


def _nodes(found: Profile) -> tuple[NodeTime, ...]:
    slowest = sorted(found.nodes, key=lambda node: -node.ms)
    return tuple(NodeTime(name=n.name, op_type=n.op_type, ms=n.ms) for n in slowest)


def values_apart(bench: Workbench, other: ir.Model) -> LayerPairs | None:
    """How far apart the values inside are, of both models simplified: in one of them batch norms may be folded, and the
    output of a convolution then is what the batch norm gave in the other."""
    feeds = list(islice(bench.evaluation, LAYER_FEEDS))
    bench.clock.report("comparing values inside", 0, None)
    try:
        found = compare_layers(bench.simplified, other, feeds, bench.context.session)
    except OnnxcompError as error:  # such as a kernel that exists only as part of a fusion
        sentence = f"values inside were not compared: {error.message}"
        bench.notes.append(Note(level="info", sentence=sentence))
        return None
    return LayerPairs(
        feeds=len(feeds),
        values=found.values,
        matched=found.matched,
        layers=tuple(LayerDifference(name=x.name, op_type=x.op_type, error=x.error) for x in found.errors),
        reshaped=found.reshaped,
    )
