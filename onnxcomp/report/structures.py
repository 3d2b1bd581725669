"""The report as data. Everything that the terminal and the JSON show is one of these."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from onnxcomp.report.reasons import Reason
from onnxcomp.report.text import encodable

REPORT_SCHEMA = "onnxcomp-report/1"
FileName = Annotated[str, AfterValidator(encodable)]
"""A name or path as shown; the file itself may have a name that is not UTF-8."""


Number = Annotated[float, WithJsonSchema({"anyOf": [{"type": "number"}, {"enum": ["Infinity", "-Infinity", "NaN"]}]})]
"""A figure that may be infinite (the SQNR of equal outputs) or not a number: JSON has only words for those."""


class Record(BaseModel):
    """Base of all structures: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Skip(Record):
    """A node that a pass left alone, with the reason as a code and as a sentence."""

    node: str
    op_type: str
    code: Reason
    sentence: str


class Note(Record):
    """A fact that must not stay silent; `warning` is shown in the terminal in every mode but `-q`."""

    level: Literal["info", "warning"]
    sentence: str


class ModelFacts(Record):
    """A model in numbers.

    `bytes`: on disk, graph and data; `nodes` and `operators`: with the bodies of If, Loop and Scan, without Constant
    nodes; `macs`: multiply-accumulates of one call, None when shapes are unknown.
    """

    name: FileName
    sha256: str
    bytes: int
    opset: int
    ir_version: int
    nodes: int
    parameters: int
    weight_bytes: int
    macs: int | None
    macs_unknown: int = Field(description="Nodes whose MACs could not be counted because a shape is unknown")
    operators: dict[str, int]


class DataFacts(Record):
    kind: Literal["real", "random"]
    name: FileName
    samples: int
    labels: bool
    sha256: str


class OutputFidelity(Record):
    """Closeness of one output to the original, over the evaluation feeds.

    `cosine`: mean over feeds; `sqnr_db`: 10·log10(Σ y² / Σ (y − ŷ)²) over all feeds; `max_abs`: largest |y − ŷ|;
    `kl`: mean KL divergence of the softmaxed rows (only where the output looks like logits or probabilities);
    `top1_agreement`: share of the rows with the same arg-max (idem).
    """

    output: str
    cosine: Number
    sqnr_db: Number
    max_abs: Number
    kl: Number | None = None
    top1_agreement: float | None = None


class MetricResult(Record):
    """A metric on labelled evaluation data, before and after."""

    name: str
    before: Number
    after: Number
    drop: Number = Field(description="How much worse, in the metric's own unit; negative when better")
    samples: int


class GateResult(Record):
    name: str
    wanted: str
    value: Number
    passed: bool

    def sentence(self) -> str:
        """`cosine of logits is 0.987654, wanted ≥ 0.99`."""
        return f"{self.name} is {self.value:.6f}, wanted {self.wanted}"


class Latency(Record):
    """Milliseconds of one call."""

    minimum: float
    p10: float
    median: float
    p90: float
    p99: float
    cov: float
    rounds: int
    samples_ms: tuple[float, ...] = ()


class Benchmark(Record):
    """Interleaved measurement. `speedup`: p10(before) / p10(after), with a 95 % bootstrap interval."""

    provider_requested: str
    providers_effective: tuple[str, ...]
    threads: int
    shapes: dict[str, tuple[int, ...]]
    latency: dict[str, Latency]
    speedup: dict[str, float] = Field(description="Of each model over the first")
    interval: dict[str, tuple[float, float]]
    verdict: Literal["VALID", "UNSTABLE"]
    reason: str = ""


class Stretch(Record):
    """Nodes that follow each other in the order of the graph and run alike: in integers, or in floats.

    `nodes`: how many, of those that the pass decided on; `macs`: their multiply-accumulates, 0 everywhere if some are
    unknown; `first`, `last`: names.
    """

    integer: bool
    nodes: int
    macs: int
    first: str
    last: str


class FusionAudit(Record):
    """What ONNX Runtime really runs: operators of the optimised graph, and the heavy nodes that stayed float.

    `order`: the graph from inputs to outputs, where the pass decides node by node.
    """

    integer_kernels: dict[str, int]
    float_heavy: dict[str, int]
    conversions: int = Field(description="QuantizeLinear and DequantizeLinear nodes left in the optimised graph")
    stayed_float: tuple[Skip, ...] = ()
    order: tuple[Stretch, ...] = ()


class KernelPair(Record):
    """Kernels of one type in the graphs that ONNX Runtime made of A and B: how many, and milliseconds of one call."""

    operator: str
    nodes: tuple[int, int]
    ms: tuple[float, float]


class NodeTime(Record):
    """A kernel with its node, and milliseconds of one call."""

    name: str
    op_type: str
    ms: float


class ProfilePair(Record):
    """Where the time goes, by ONNX Runtime's profiler, which itself takes time: shares, not latencies."""

    runs: tuple[int, int]
    total_ms: tuple[float, float]
    kernels: tuple[KernelPair, ...]
    nodes_a: tuple[NodeTime, ...] = Field(description="The slowest first")
    nodes_b: tuple[NodeTime, ...] = Field(description="The slowest first")


class LayerDifference(Record):
    """A value that both models compute under one name; `error`: Σ‖a − b‖² / Σ‖a‖² over the feeds."""

    name: str
    op_type: str
    error: Number


class LayerPairs(Record):
    """What was compared inside; `values`: of A, `matched`: those that B has by name, `reshaped`: with another shape."""

    feeds: int
    values: int
    matched: int
    layers: tuple[LayerDifference, ...] = Field(description="The worst first")
    reshaped: tuple[str, ...] = ()


class StepStatus(StrEnum):
    KEPT = "kept"
    UNDONE = "undone"
    NOTHING_TO_DO = "nothing to do"
    PLANNED = "planned"


class Attempt(Record):
    """One try of a step: what it was, its gates, what it measured."""

    description: str
    gates: tuple[GateResult, ...] = ()
    fidelity: tuple[OutputFidelity, ...] = ()
    speedup: float | None = None
    bytes: int | None = None
    kept: bool
    why: str = ""


class Channels(Record):
    """Channels that are pruned among each other: how many there were, and how many stay.

    `loss`: predicted, in the unit of the ranking; `exact`: False where an operator takes statistics over them.
    """

    name: str
    size: int
    kept: int
    exact: bool
    loss: float
    why: str = ""


class Layer(Record):
    """A weight that may be written as two factors; `rank`: channels between them, None where it stays whole.

    `break_even`: the rank at which two factors are as large as the whole; `form`: how it is split; `energy`: share of
    its output's energy that is kept; `loss`: predicted loss of the model's outputs, as a share of their variance;
    `ranks`, `energies`: a few ranks up to the full one, and the share that each of them keeps.
    """

    name: str
    op_type: str
    size: str
    rank: int | None
    break_even: float
    form: str
    energy: Number
    loss: Number
    why: str = ""
    ranks: tuple[int, ...] = ()
    energies: tuple[float, ...] = ()


class ActivationRange(Record):
    """The range that 8 bits represent of an activation, on a histogram of what calibration saw of it.

    `low`, `high`: observed; `chosen`: represented; `method`: how it was chosen; `beyond`: share of the sampled values
    that lie further outside than half a step; `through`: the operator through which alone it is seen, if there is one;
    `clipped`: share of the values that are changed by it, as seen through that, by more than rounding changes any;
    `start`, `width`, `counts`: sampled values in bins of one width.
    """

    name: str
    low: float
    high: float
    chosen: tuple[float, float]
    method: str
    beyond: float
    clipped: float
    through: str = ""
    start: float
    width: float
    counts: tuple[int, ...]


class ActivationRanges(Record):
    """Ranges of the activations with the longest tails, those that clip most first; `activations`: how many have a
    range in all."""

    activations: int
    shown: tuple[ActivationRange, ...]


class StepReport(Record):
    name: str
    status: StepStatus
    why: str
    changed: int = 0
    summary: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    skips: tuple[Skip, ...] = ()
    audit: FusionAudit | None = None
    channels: tuple[Channels, ...] = ()
    layers: tuple[Layer, ...] = ()
    ranges: ActivationRanges | None = None
    elapsed_s: float = 0.0


class Verdict(StrEnum):
    PASSED = "PASSED"
    NOTHING_GAINED = "NOTHING GAINED"
    DONE = "DONE"
    PLANNED = "PLANNED"
    FAILED = "FAILED"


class Report(Record):
    schema_: str = Field(default=REPORT_SCHEMA, alias="schema")
    command: str
    version: str
    verdict: Verdict
    sentence: str
    exit_code: int
    target: str
    target_is_host: bool = Field(default=True, description="If not, what was measured is unverified for the target")
    host: str
    seed: int
    versions: dict[str, str]
    source: ModelFacts
    result: ModelFacts
    result_path: FileName | None = None
    calibration: DataFacts | None = None
    evaluation: DataFacts | None = None
    steps: tuple[StepReport, ...] = ()
    fidelity: tuple[OutputFidelity, ...] = ()
    metric: MetricResult | None = None
    gates: tuple[GateResult, ...] = ()
    benchmark: Benchmark | None = None
    profile: ProfilePair | None = Field(default=None, description="A: the original, B: the result")
    inside: LayerPairs | None = Field(default=None, description="A: the original, B: the result")
    notes: tuple[Note, ...] = ()
    duration_s: float = 0.0

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, ser_json_inf_nan="strings")
