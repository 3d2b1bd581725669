"""The fusion audit: what ONNX Runtime really runs of a quantised model, and which nodes were written as INT8 in
vain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import groupby

import onnx_ir as ir

from onnxcomp.ops.kernels import ABSORBED_ACTIVATIONS, FUSED_INTO_GEMM, HEAVY_OPERATORS
from onnxcomp.ops.targets import Target
from onnxcomp.passes.base import Proof
from onnxcomp.passes.kernel_counts import count_kernels
from onnxcomp.passes.quantize.plan import QuantPlan
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import FusionAudit, Skip, Stretch
from onnxcomp.runtime.session import SessionConfig


def audit(
    model: ir.Model, plan: QuantPlan, config: SessionConfig, macs: Mapping[str, int] | None = None
) -> FusionAudit:
    """Lets ONNX Runtime optimise `model`, and counts.

    A node is found again by its name, which fusions and layouts keep but for a prefix or a suffix, or by its output.

    Args:
        macs: Multiply-accumulates by node; None where those of some node are unknown.
    """
    counts = count_kernels(model, config)
    floats = tuple(_stayed_float(model, plan, counts.float_names))
    return FusionAudit(
        integer_kernels=dict(counts.integer),
        float_heavy=dict(counts.floats),
        conversions=counts.conversions,
        stayed_float=floats,
        order=tuple(_order(model, plan, {s.node for s in floats}, macs or {})),
    )


def structure(after: ir.Model, plan: QuantPlan, target: Target) -> Proof:
    """What was written for a machine that is not here: nothing says yet that its compiler takes it."""
    written = Counter(node.op_type for node in after.graph)
    floats = Counter(n.op_type for n in after.graph if n.op_type in HEAVY_OPERATORS and n.name not in plan.quantized())
    sentences = [
        f"{len(plan.quantized())} operators read integers as {target.name} wants them; "
        f"{written['QuantizeLinear']} QuantizeLinear, {written['DequantizeLinear']} DequantizeLinear",
        f"unverified here: what {target.name} makes of them is not known on this machine",
    ]
    if floats:
        sentences.append("in float: " + ", ".join(f"{count} {op_type}" for op_type, count in floats.most_common()))
    return Proof(passed=bool(plan.quantized()), sentences=tuple(sentences))


def unfused(found: FusionAudit) -> tuple[str, ...]:
    """Names of the nodes that the plan put into INT8 but that run in float."""
    return tuple(skip.node for skip in found.stayed_float if skip.code is Reason.NOT_FUSED)


def _stayed_float(model: ir.Model, plan: QuantPlan, float_names: frozenset[str]) -> list[Skip]:
    result = []
    for node in model.graph:
        if node.op_type not in HEAVY_OPERATORS:
            continue
        decision = plan.nodes.get(node.name or "")
        if decision is not None and decision.precision == "int8":
            if float_names & {node.name, *_own_outputs(node)}:
                result.append(
                    Skip(
                        node=node.name or "",
                        op_type=node.op_type,
                        code=Reason.NOT_FUSED,
                        sentence=DESCRIPTIONS[Reason.NOT_FUSED],
                    )
                )
        elif decision is not None and decision.code is not None:
            result.append(
                Skip(node=node.name or "", op_type=node.op_type, code=decision.code, sentence=decision.sentence)
            )
    known = {s.node for s in result}
    result.extend(s for s in plan.skips if s.op_type in HEAVY_OPERATORS and s.node not in known)
    return result


def _order(model: ir.Model, plan: QuantPlan, floats: Collection[str], macs: Mapping[str, int]) -> Iterator[Stretch]:
    """The nodes that the plan decided on or skipped, in the order of the graph, neighbours that run alike together."""
    decided = plan.nodes.keys() | {s.node for s in plan.skips}
    names = (node.name or "" for node in model.graph)
    integers = plan.quantized().difference(floats)
    for integer, group in groupby((n for n in names if n in decided), key=integers.__contains__):
        nodes = list(group)
        work = sum(macs.get(n, 0) for n in nodes)
        yield Stretch(integer=integer, nodes=len(nodes), macs=work, first=nodes[0], last=nodes[-1])


def _own_outputs(node: ir.Node) -> set[str | None]:
    """Names of the node's output, and of what a fusion can take in behind it."""
    followers = (u.node for v in node.outputs for u in v.uses())
    fused = (f for f in followers if f.op_type in ABSORBED_ACTIVATIONS | FUSED_INTO_GEMM | {"Add"})
    return {v.name for n in (node, *fused) for v in n.outputs}
