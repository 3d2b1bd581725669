"""Running the INT8 pass on a textual graph, and what every such test asks of the result."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from graphs import context, cosine, feeds, run

from onnxcomp.calibration.readers import Feed
from onnxcomp.model.normalize import normalize
from onnxcomp.passes.base import Context
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.quantize.plan import QuantPlan
from onnxcomp.passes.quantize.quantize import Quantize
from onnxcomp.runtime.audit import optimized_graph

ANYWHERE = "cpu-avx2"
"""The target whose integer sums are exact on every machine: full-range weights saturate where there is no VNNI."""

FLOAT_ARITHMETIC = {
    "Conv",
    "FusedConv",
    "Gemm",
    "FusedGemm",
    "MatMul",
    "FusedMatMul",
    "Add",
    "Mul",
    "Sigmoid",
    "Relu",
    "Clip",
}


@dataclass(frozen=True)
class Quantized:
    """A model through the pass: canonical form, plan, result, the feeds that it learned from."""

    before: ir.Model
    plan: QuantPlan
    after: ir.Model
    items: list[Feed]
    ctx: Context

    def operators(self) -> Counter[str]:
        """What ONNX Runtime runs, without domains."""
        return Counter(n.op_type for n in optimized_graph(self.after).graph)

    def conversions(self) -> int:
        counts = self.operators()
        return counts["QuantizeLinear"] + counts["DequantizeLinear"]

    def cosine(self) -> float:
        """Of all outputs over all feeds: the smallest."""
        pairs = [zip(run(self.before, f), run(self.after, f), strict=True) for f in self.items]
        return min(cosine(y, z) for pair in pairs for y, z in pair)

    def precision(self, op_type: str) -> set[str]:
        return {d.precision for d in self.plan.nodes.values() if d.op_type == op_type}

    def skipped(self, op_type: str) -> set[str]:
        return {s.code.value for s in self.plan.left_alone() if s.op_type == op_type}


TWO = """g (float[N,16,8,8] x, float[16,16,1,1] w1, float[16,16,1,1] w2) => (float[N,16,8,8] y) {
    a = Conv(x, w1)
    t = Tanh(a)
    y = Conv(t, w2)
}"""


def quantized(
    model: ir.Model, items: list[Feed] | None = None, *, target: str = ANYWHERE, batch: int = 1, **config: object
) -> Quantized:
    before = normalize(model).model
    items = items if items is not None else feeds(before, batch=batch)
    ctx = context(items, target)
    step = Quantize(QuantizeConfig(**config))  # type: ignore[arg-type]
    plan = step.plan(before, ctx)
    return Quantized(before, plan, step.apply(before, plan, ctx), items, ctx)


def assert_integer(found: Quantized, kernels: dict[str, int], *, conversions: int, at_least: float = 0.99) -> None:
    """The integer kernels and the conversions at the borders are exactly these, nothing computes in float, and the
    outputs are close, but not equal: then nothing would be quantised."""
    counts = found.operators()
    assert {k: counts[k] for k in kernels} == kernels, counts
    assert not FLOAT_ARITHMETIC & set(counts), counts
    assert counts["QuantizeLinear"] + counts["DequantizeLinear"] == conversions, counts
    assert at_least < found.cosine() < 1.0


def dequantized(value: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    return (value.astype(np.float64) - zero_point) * scale
