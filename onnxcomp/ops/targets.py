"""Facts about the machines that a result is for.

Sources: `onnxruntime/core/mlas/lib/platform.cpp` (which kernel runs on which instruction set: before VNNI,
    `vpmaddubsw` adds two u8·s8
products in a saturating int16) and `core/optimizer/qdq_transformer` (what fuses).
"""

from __future__ import annotations

from dataclasses import dataclass


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
    """

    name: str
    provider: str
    pairs_saturate: bool
    channel_multiple: int
    conv_inputs: int = 1
    conv_outputs: int = 1
    note: str = ""


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
        Target("arm64", "cpu", pairs_saturate=False, channel_multiple=8),
    )
}
