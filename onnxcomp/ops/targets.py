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
        weight_qmax: Largest magnitude of an INT8 weight. 127 where integer dot products are exact. 64 where u8·s8
            pairs are summed in a saturating int16: two products of 255 · 64 = 16,320 add to 32,640 ≤ 32,767, so no
                sum can saturate.
        channel_multiple: Channel counts that the fast kernels want.
        note: What a user should know; shown in the report.
    """

    name: str
    provider: str
    weight_qmax: int
    channel_multiple: int
    note: str = ""


TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target("cpu-vnni", "cpu", weight_qmax=127, channel_multiple=16),
        Target(
            "cpu-avx2",
            "cpu",
            weight_qmax=64,
            channel_multiple=8,
            note="this kind of CPU has no VNNI: full-range INT8 weights would saturate in its 16-bit sums, so weights "
            "use 7 bits (−64 to 64)",
        ),
        Target("arm64", "cpu", weight_qmax=127, channel_multiple=8),
    )
}
