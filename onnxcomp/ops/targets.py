"""Facts about the machines that a result is for.

Sources: `onnxruntime/core/mlas/lib/platform.cpp` (which kernel runs on which instruction set: before VNNI, `vpmaddubsw`
adds two u8·s8 products in a saturating int16) and `core/optimizer/qdq_transformer` (what fuses on the CPU). For cuda,
tensorrt and qnn, of which nothing was measured: ONNX Runtime's documentation of these providers, `get_qnn_qdq_config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Placement = Literal["islands", "inputs", "everywhere"]
"""Where QuantizeLinear and DequantizeLinear stand.

islands: around regions that hand integers to each other, where nothing is converted in vain.
inputs: on what products and residual sums read, and nowhere else; the compiler chooses what its kernels write.
everywhere: around every float operator, the model's own inputs and outputs included.
"""


@dataclass(frozen=True)
class Int8:
    """How a machine wants static INT8 written. Weights are int8, symmetric, one scale for each output channel.

    Args:
        activations: Type of activations.
        symmetric: Their zero points are 0.
        placement: See `Placement`.
        bias: Constant biases are int32 at scale s_x·s_w; otherwise they stay floats.
        rewrites: Operators may be written as others, for which ONNX Runtime's CPU provider has integer kernels.
    """

    activations: Literal["uint8", "int8"] = "uint8"
    symmetric: bool = False
    placement: Placement = "islands"
    bias: bool = True
    rewrites: bool = True


@dataclass(frozen=True)
class Target:
    """One kind of machine.

    Args:
        name: What `--target` takes.
        provider: Execution provider that runs the integer kernels.
        pairs_saturate: Two neighbouring u8·s8 products are added in a saturating int16, so that neighbouring weights
            must not be large together. Depthwise kernels multiply in wider integers and are free of it.
        channel_multiple: Channel counts that the fast kernels want.
        conv_inputs, conv_outputs: Multiples of input and output channels with which the fast integer convolution runs
            (`MlasConvSym`, mlas/lib/convsym.cpp); on x86 it was measured to be worth zeros.
        note: What a user should know; shown in the report.
        int8: How static INT8 is written for it.
        refuses: Pass → why it makes nothing better there, and what to do instead.
    """

    name: str
    provider: str
    pairs_saturate: bool
    channel_multiple: int
    conv_inputs: int = 1
    conv_outputs: int = 1
    note: str = ""
    int8: Int8 = Int8()
    refuses: Mapping[str, tuple[str, str]] = field(default_factory=dict)


TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target("cpu-vnni", "cpu", pairs_saturate=False, channel_multiple=16, conv_inputs=4, conv_outputs=4),
        Target(
            "cpu-avx2",
            "cpu",
            pairs_saturate=True,
            channel_multiple=8,
            conv_inputs=4,
            conv_outputs=8,
            note="this kind of CPU has no VNNI: sums of two products saturate at 16 bits, so the scales of INT8 "
            "weights keep neighbours small enough",
        ),
        # MLAS multiplies u8·s8 by dot products on Arm too, so asymmetric uint8 keeps its finer steps behind a Relu.
        Target("arm64", "cpu", pairs_saturate=False, channel_multiple=8),
        Target(
            "cuda",
            "cuda",
            pairs_saturate=False,
            channel_multiple=8,
            refuses={
                "quantize": (
                    "ONNX Runtime's CUDA provider has no integer kernels for static INT8: it would compute in float "
                    "and convert on the way",
                    "--mode fp16 halves the weights and is what its kernels are fast at; --target tensorrt for INT8",
                )
            },
        ),
        Target(
            "tensorrt",
            "tensorrt",
            pairs_saturate=False,
            channel_multiple=16,
            int8=Int8(activations="int8", symmetric=True, placement="inputs", bias=False, rewrites=False),
        ),
        Target(
            "qnn",
            "qnn",
            pairs_saturate=False,
            channel_multiple=16,
            int8=Int8(placement="everywhere", rewrites=False),
        ),
    )
}
