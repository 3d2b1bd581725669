"""A report with everything in it, made by hand."""

from __future__ import annotations

from typing import Any

from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import (
    Attempt,
    Benchmark,
    DataFacts,
    FusionAudit,
    GateResult,
    Latency,
    MetricResult,
    ModelFacts,
    Note,
    OutputFidelity,
    Report,
    Skip,
    StepReport,
    StepStatus,
    Verdict,
)


def facts(**changes: Any) -> ModelFacts:
    values: dict[str, Any] = {
        "name": "m.onnx",
        "sha256": "0" * 64,
        "bytes": 1_639_803,
        "opset": 17,
        "ir_version": 8,
        "nodes": 35,
        "parameters": 408_458,
        "weight_bytes": 1_633_832,
        "macs": 33_200_000,
        "macs_unknown": 0,
        "operators": {"Conv": 10, "BatchNormalization": 8},
    }
    return ModelFacts(**(values | changes))


def latency(p10: float) -> Latency:
    return Latency(minimum=p10, p10=p10, median=p10, p90=p10, p99=p10, cov=0.01, rounds=1200)


def benchmark(verdict: Any = "VALID") -> Benchmark:
    return Benchmark(
        provider_requested="cpu",
        providers_effective=("CPUExecutionProvider",),
        threads=2,
        shapes={"image": (1, 1, 28, 28)},
        latency={"before": latency(0.882), "after": latency(0.541)},
        speedup={"after": 0.882 / 0.541},
        interval={"after": (1.61, 1.66)},
        verdict=verdict,
        reason="" if verdict == "VALID" else "after: 8% apart",
    )


def skips(node: str = "gemm") -> tuple[Skip, ...]:
    return (
        Skip(node=node, op_type="Gemm", code=Reason.EXCLUDED, sentence="excluded by 'Gemm'"),
        Skip(node="add1", op_type="Add", code=Reason.UNSUPPORTED_FORM, sentence="one operand is constant"),
        Skip(node="add2", op_type="Add", code=Reason.UNSUPPORTED_FORM, sentence="the shapes differ"),
    )


def report(**changes: Any) -> Report:
    audit = FusionAudit(
        integer_kernels={"QLinearConv": 10},
        float_heavy={"Gemm": 1},
        conversions=3,
        stayed_float=(Skip(node="late", op_type="Conv", code=Reason.NOT_FUSED, sentence="runs in float"),),
    )
    attempts = (
        Attempt(description="as planned", kept=False, why="cosine of y is 0.9, wanted ≥ 0.99"),
        Attempt(description="relaxed", kept=True, why="1.63 × as fast"),
    )
    step = StepReport(
        name="quantize",
        status=StepStatus.KEPT,
        why="1.63 × as fast",
        changed=17,
        summary=("17 nodes",),
        attempts=attempts,
        skips=skips(),
        audit=audit,
    )
    values: dict[str, Any] = {
        "command": "optimize",
        "version": "0.1.0",
        "verdict": Verdict.PASSED,
        "sentence": "1.64 → 0.45 MB",
        "exit_code": 0,
        "target": "cpu-avx2",
        "host": "A CPU, 2 cores",
        "seed": 0,
        "versions": {"onnx": "1.23"},
        "source": facts(),
        "result": facts(bytes=450_000, nodes=85, operators={"Conv": 10, "QuantizeLinear": 18}),
        "result_path": "out/m.opt.onnx",
        "calibration": DataFacts(kind="real", name="c.npz", samples=256, labels=False, sha256="1" * 64),
        "evaluation": DataFacts(kind="random", name="random:8", samples=1, labels=True, sha256="2" * 64),
        "steps": (step,),
        "fidelity": (
            OutputFidelity(output="logits", cosine=0.99987, sqnr_db=34.7, max_abs=0.437, top1_agreement=0.994),
        ),
        "metric": MetricResult(name="top1", before=0.926, after=0.928, drop=-0.002, samples=1000),
        "gates": (GateResult(name="drop of top1", wanted="≤ 0.01", value=-0.002, passed=True),),
        "benchmark": benchmark(),
        "notes": (Note(level="warning", sentence="RANDOM feeds"), Note(level="info", sentence="no VNNI")),
        "duration_s": 12.3,
    }
    return Report(**(values | changes))
