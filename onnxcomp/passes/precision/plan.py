"""The plan of 16-bit floats: the precision of every node. Pure data: saved as JSON, edited by hand, replayed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from onnxcomp.ops.halves import HALVES, HalfName
from onnxcomp.ops.targets import TARGETS
from onnxcomp.passes.base import Plan
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import Record, Skip


class NodePrecision(Record):
    """The precision of one node. `code` and `sentence` say why a node stays float32."""

    precision: Literal["half", "float"]
    op_type: str
    code: Reason | None = None
    sentence: str = ""


class PrecisionPlan(Plan):
    """Node → precision. Replaying it needs no calibration data.

    Args:
        dtype: Which 16-bit float.
        nodes: Every node that reads or writes float32 values, by name; Casts follow their neighbours.
        clamped: Constants of attention masks that become the largest magnitude of the type instead of infinity.
        calibrated: Whether activations were watched; otherwise only weights were checked.
        sensitivity: Node → error of the model's outputs (1 − cosine) with only its group in 16 bits; filled when
            relaxing needed it.
    """

    dtype: HalfName = "fp16"
    nodes: dict[str, NodePrecision] = Field(default_factory=dict)
    clamped: tuple[str, ...] = ()
    calibrated: bool = False
    sensitivity: dict[str, float] = Field(default_factory=dict)

    def changes(self) -> frozenset[str]:
        return frozenset(name for name, node in self.nodes.items() if node.precision == "half")

    def left_alone(self) -> tuple[Skip, ...]:
        kept = (
            Skip(node=name, op_type=node.op_type, code=node.code, sentence=node.sentence)
            for name, node in self.nodes.items()
            if node.precision == "float" and node.code is not None
        )
        return (*self.skips, *kept)

    def aim(self) -> str:
        return f"{HALVES[self.dtype].name} where ranges and operators allow it"

    def warnings(self) -> tuple[str, ...]:
        if not self.changes():
            return ()
        name, found = HALVES[self.dtype].name, []
        if not self.calibrated:
            found.append(
                f"RANGES UNKNOWN: without calibration data only weights were checked; "
                f"an activation beyond {HALVES[self.dtype].largest:.4g} becomes infinite"
            )
        if self.target in TARGETS and TARGETS[self.target].provider == "cpu":
            found.append(
                f"ONNX Runtime computes {name} on a CPU mostly in float32 behind casts: the file is smaller, "
                "and rarely faster there"
            )
        return tuple(found)

    def with_float(self, names: frozenset[str]) -> PrecisionPlan:
        """The same plan with these nodes left in float32."""
        changed = {
            name: NodePrecision(
                precision="float",
                op_type=self.nodes[name].op_type,
                code=Reason.RELAXED,
                sentence=DESCRIPTIONS[Reason.RELAXED],
            )
            for name in names & self.changes()
        }
        return self.model_copy(update={"nodes": {**self.nodes, **changed}})
