"""From a job to its report: the facts of source and result, the data, the steps, the figures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxcomp import __version__
from onnxcomp.driver.facts import host_line, model_facts, versions
from onnxcomp.driver.workbench import Workbench, data_facts
from onnxcomp.evaluate.judge import Judgement
from onnxcomp.model.load import LoadedModel
from onnxcomp.model.save import INLINE_LIMIT, serialize, weight_bytes
from onnxcomp.report.figures import size
from onnxcomp.report.structures import Benchmark, LayerPairs, ModelFacts, ProfilePair, Report, StepReport, Verdict


@dataclass(frozen=True)
class Measured:
    """What the final comparison with the original found; empty where the original itself is handed back."""

    judgement: Judgement | None = None
    timing: Benchmark | None = None
    profile: ProfilePair | None = None
    inside: LayerPairs | None = None


@dataclass(frozen=True)
class Subject:
    """A model as a report names it. `size`: bytes on disk, or of the serialised model while it is not saved yet."""

    model: ir.Model
    name: str
    sha256: str
    size: int

    @classmethod
    def of(cls, loaded: LoadedModel) -> Subject:
        return cls(loaded.model, loaded.name, loaded.sha256, loaded.bytes)

    @classmethod
    def in_memory(cls, model: ir.Model) -> Subject:
        """A result that is not saved yet; one too large for a single file gets its digest when it is saved."""
        if weight_bytes(model) > INLINE_LIMIT:
            return cls(model, "<memory>", "", weight_bytes(model))
        content = serialize(model)
        return cls(model, "<memory>", hashlib.sha256(content).hexdigest(), len(content))

    def facts(self, shapes: Mapping[str, Sequence[int]], counted_as: ir.Model | None = None) -> ModelFacts:
        return model_facts(self.model, self.name, self.sha256, self.size, shapes, counted_as=counted_as)


def fill(
    command: str,
    bench: Workbench,
    verdict: Verdict,
    sentence: str,
    result: Subject,
    *,
    steps: Sequence[StepReport] = (),
    measured: Measured | None = None,
    exit_code: int = 0,
) -> Report:
    """The report of a prepared job."""
    measured = measured or Measured()
    judgement, shapes = measured.judgement, bench.context.shapes
    source = Subject.of(bench.loaded)
    return Report(
        command=command,
        version=__version__,
        verdict=verdict,
        sentence=sentence,
        exit_code=exit_code,
        target=bench.target.name,
        target_is_host=bench.target_is_host,
        host=host_line(),
        seed=bench.options.seed,
        versions=versions(),
        source=source.facts(shapes, counted_as=bench.simplified),
        result=result.facts(shapes, counted_as=bench.simplified if result.model is source.model else None),
        calibration=bench.calibration_facts,
        evaluation=data_facts(bench.evaluation),
        steps=tuple(steps),
        fidelity=judgement.fidelity if judgement else (),
        metric=judgement.metric if judgement else None,
        gates=judgement.gates if judgement else (),
        benchmark=measured.timing,
        profile=measured.profile,
        inside=measured.inside,
        notes=tuple(dict.fromkeys(bench.notes)),
        duration_s=round(bench.clock.elapsed(), 3),
    )


def gain(bench: Workbench, result: Subject, timing: Benchmark) -> str:
    """`1.64 → 0.45 MB (3.67 × smaller), 1.50 × as fast`, and what is not proven of it."""
    before, after = bench.loaded.bytes, result.size
    factor = f"{before / after:.2f} × smaller" if before >= after else f"{after / before:.2f} × larger"
    doubt = "" if timing.verdict == "VALID" else " (latency not proven)"
    if not bench.target_is_host:
        doubt = f" on this machine (unverified for {bench.target.name})"
    return f"{size(before)} → {size(after)} ({factor}), {timing.speedup['after']:.2f} × as fast{doubt}"
