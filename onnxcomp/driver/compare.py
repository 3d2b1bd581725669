"""The job behind `compare`: two models side by side on the same feeds."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxcomp import __version__
from onnxcomp.driver.conclusion import FINAL_SECONDS
from onnxcomp.driver.facts import host_line, versions
from onnxcomp.driver.inside import profiled, values_apart
from onnxcomp.driver.latency import measure
from onnxcomp.driver.options import options_of
from onnxcomp.driver.reporting import Subject
from onnxcomp.driver.workbench import Workbench, data_facts, prepare
from onnxcomp.errors import ModelError, UsageError
from onnxcomp.evaluate.gates import Gates
from onnxcomp.evaluate.proof import check_structure
from onnxcomp.model.load import ModelSource
from onnxcomp.model.normalize import normalize
from onnxcomp.model.operators import by_operator
from onnxcomp.report.comparison import (
    ModelComparison,
    OperatorPair,
)
from onnxcomp.report.text import encodable
from onnxcomp.runtime.call_shapes import shapes_of_call


def compare(
    a: ModelSource,
    b: ModelSource,
    calibration: object | None = None,
    eval: object | None = None,
    *,
    min_seconds: float = FINAL_SECONDS,
    **options: Any,
) -> ModelComparison:
    """Two models with the same inputs and outputs side by side: what they hold, answer, and take.

    Args:
        a, b: Path, bytes, `onnx.ModelProto` or `onnx_ir.Model`; B is held against A.
        calibration, eval: The feeds, under either name: all of them are used. Default: random.
        min_seconds: Of the first measurement of latency.
        **options: The fields of `onnxcomp.driver.options.Options` that make no result.

    Raises:
        ModelError: The two don't have the same inputs and outputs.
        UsageError: Feeds under both names.
    """
    if calibration is not None and eval is not None:
        raise UsageError("nothing is learned here, so --calibration and --eval mean the same", hint="give one of them")
    bench = prepare(a, options_of(None, calibration if eval is None else eval, options), Gates())
    other = bench.second(b)
    complaint = check_structure(bench.loaded.model, other.model)
    if complaint is not None:
        raise ModelError(f"{other.name} can't be compared with {bench.loaded.name}: {complaint}")
    canonical = normalize(other.model).model
    judgement = bench.judge.judge(other.model)
    first, second = encodable(bench.loaded.name), encodable(other.name)
    second += "'" * (second == first)
    timing = measure(
        {first: bench.loaded.model, second: other.model},
        bench.feed,
        bench.context.session,
        bench.clock,
        min_seconds=min_seconds,
        attempts=3,
    )
    profiles = profiled(bench, other.model)
    simplified = bench.rewritten(canonical)
    layers = values_apart(bench, simplified)
    evaluation = data_facts(bench.evaluation)
    assert evaluation is not None
    shapes = bench.context.shapes
    return ModelComparison(
        version=__version__,
        target=bench.target.name,
        host=host_line(),
        seed=bench.options.seed,
        versions=versions(),
        names=(first, second),
        a=Subject.of(bench.loaded).facts(shapes, counted_as=bench.simplified),
        b=Subject.of(other).facts(shapes, counted_as=simplified),
        operators=_operators(bench, canonical),
        evaluation=evaluation,
        fidelity=judgement.fidelity,
        metric=judgement.metric,
        benchmark=timing,
        profile=profiles,
        layers=layers,
        notes=tuple(dict.fromkeys(bench.notes)),
        duration_s=round(bench.clock.elapsed(), 3),
    )


def _operators(bench: Workbench, other: ir.Model) -> tuple[OperatorPair, ...]:
    """Types of operators of both, those with most weights and MACs first."""
    feed, config = bench.feed, bench.context.session
    a, b = (by_operator(model, shapes_of_call(model, feed, config)) for model in (bench.canonical, other))
    pairs = []
    for name in {**a, **b}:
        costs = [side.get(name) for side in (a, b)]
        pairs.append(
            OperatorPair(
                operator=name,
                nodes=(costs[0].nodes if costs[0] else 0, costs[1].nodes if costs[1] else 0),
                macs=(costs[0].macs if costs[0] else 0, costs[1].macs if costs[1] else 0),
                bytes=(costs[0].bytes if costs[0] else 0, costs[1].bytes if costs[1] else 0),
            )
        )
    return tuple(sorted(pairs, key=lambda p: (-max(m or 0 for m in p.macs), -max(p.bytes), -max(p.nodes), p.operator)))
