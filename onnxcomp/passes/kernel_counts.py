"""What ONNX Runtime really runs of a quantised model: integer kernels, heavy float operators, conversions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxcomp.ops.attributes import qualified
from onnxcomp.ops.kernels import HEAVY_OPERATORS, INTEGER_OPERATORS
from onnxcomp.report.structures import FusionAudit, Skip
from onnxcomp.runtime.audit import optimized_graph
from onnxcomp.runtime.session import SessionConfig

CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


@dataclass(frozen=True)
class KernelCounts:
    """Operators of the graph that ONNX Runtime optimised.

    Args:
        integer: Kernels that compute with integers, by operator; `floats`: heavy operators in float.
        conversions: Nodes that quantise or dequantise.
        float_names: Of the heavy float nodes and of what they write. Fusions and layouts keep a node's name but for a
            prefix or a suffix.
    """

    integer: Mapping[str, int]
    floats: Mapping[str, int]
    conversions: int
    float_names: frozenset[str]

    def audit(self, skips: Iterable[Skip]) -> FusionAudit:
        """With the heavy nodes that stayed float by decision."""
        return FusionAudit(
            integer_kernels=dict(self.integer),
            float_heavy=dict(self.floats),
            conversions=self.conversions,
            stayed_float=tuple(s for s in skips if s.op_type in HEAVY_OPERATORS),
        )


def count_kernels(model: ir.Model, config: SessionConfig) -> KernelCounts:
    """Lets ONNX Runtime optimise `model`, and counts.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    integer: Counter[str] = Counter()
    floats: Counter[str] = Counter()
    conversions = 0
    names: set[str] = set()
    for node in optimized_graph(model, config).graph.all_nodes():
        if node.op_type in INTEGER_OPERATORS:
            integer[node.op_type] += 1
        elif node.op_type in HEAVY_OPERATORS:
            floats[qualified(node)] += 1
            names.update(v.name or "" for v in node.outputs)
            names.add((node.name or "").removeprefix("fused ").removesuffix("_nchwc"))
        elif node.op_type in CONVERSIONS:
            conversions += 1
    return KernelCounts(dict(integer.most_common()), dict(floats.most_common()), conversions, frozenset(names))
