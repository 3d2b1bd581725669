"""Two models beside each other, as data: what `onnxcomp compare` shows."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from onnxcomp.report.structures import (
    Benchmark,
    DataFacts,
    LayerPairs,
    MetricResult,
    ModelFacts,
    Note,
    OutputFidelity,
    ProfilePair,
    Record,
)

COMPARISON_SCHEMA = "onnxcomp-comparison/1"


class OperatorPair(Record):
    """Nodes of one type in the files of A and B.

    `macs`: of one call, None when a shape is not known; `bytes`: of the weights that they compute with.
    """

    operator: str
    nodes: tuple[int, int]
    macs: tuple[int | None, int | None]
    bytes: tuple[int, int]


class ModelComparison(Record):
    """The record of `compare`. In every pair A comes first."""

    schema_: str = Field(default=COMPARISON_SCHEMA, alias="schema")
    command: str = "compare"
    version: str
    target: str
    host: str
    seed: int
    versions: dict[str, str]
    names: tuple[str, str]
    a: ModelFacts
    b: ModelFacts
    operators: tuple[OperatorPair, ...]
    evaluation: DataFacts
    fidelity: tuple[OutputFidelity, ...]
    metric: MetricResult | None = None
    benchmark: Benchmark
    profile: ProfilePair
    layers: LayerPairs | None = Field(description="None where the values inside could not be fetched")
    notes: tuple[Note, ...] = ()
    duration_s: float = 0.0

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, ser_json_inf_nan="strings")

    def sentence(self) -> str:
        """`b.onnx: 3.66 × smaller, 1.50 × as fast, cosine 0.99981`."""
        smaller = self.a.bytes / max(1, self.b.bytes)
        size = f"{smaller:.2f} × smaller" if smaller >= 1 else f"{1 / smaller:.2f} × larger"
        size = "as large" if 0.995 < smaller < 1.005 else size
        speed = f"{self.benchmark.speedup[self.names[1]]:.2f} × as fast"
        doubt = "" if self.benchmark.verdict == "VALID" else " (latency not proven)"
        cosine = min((f.cosine for f in self.fidelity), default=1.0)
        return f"{self.names[1]} beside {self.names[0]}: {size}, {speed}{doubt}; lowest cosine {cosine:.5f}"
