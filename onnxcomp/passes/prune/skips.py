"""Why channels stay: for each node with a weight, the operator that holds them."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from onnxcomp.ops.attributes import qualified
from onnxcomp.passes.base import Survey
from onnxcomp.passes.prune.analysis import WEIGHTED, Analysis
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import Skip


def skips(model: ir.Model, analysis: Analysis, held: Mapping[str, Reason]) -> list[Skip]:
    """One for each node with a weight whose outputs can't be cut.

    Args:
        held: Cells that may not be cut, with the reason.
    """
    makers = {name for cell in analysis.structure.cells if cell.name not in held for name in cell.producers}
    excluded = {
        name: held[cell.name] for cell in analysis.structure.cells if cell.name in held for name in cell.producers
    }
    result = []
    for node in model.graph.all_nodes():
        name = node.name or ""
        if qualified(node) not in WEIGHTED or name in makers:
            continue
        if node.graph is not model.graph:
            code, sentence = Reason.INSIDE_SUBGRAPH, DESCRIPTIONS[Reason.INSIDE_SUBGRAPH]
        elif name in excluded:
            code, sentence = excluded[name], DESCRIPTIONS[excluded[name]]
        else:
            code, sentence = _why(node, analysis)
        result.append(Skip(node=name, op_type=node.op_type, code=code, sentence=sentence))
    return result


def survey(model: ir.Model, analysis: Analysis) -> Survey:
    """The nodes whose outputs or inputs could be cut, and the operators that hold the channels of the others."""
    cells = analysis.structure.cells
    nodes = frozenset(name for cell in cells for name in (*cell.producers, *cell.consumers))
    channels, approximate = sum(cell.size for cell in cells), sum(not cell.exact for cell in cells)
    detail = [f"{channels:,} channels in {len(cells)} cells that are chosen among each other"] if cells else []
    if approximate:
        detail.append(f"{approximate} of the cells lie under a norm over channels, which changes the others a little")
    return Survey(nodes, tuple(skips(model, analysis, {})), tuple(detail))


def _why(node: ir.Node, analysis: Analysis) -> tuple[Reason, str]:
    """The first lock on the channels that the node makes."""
    structure = analysis.structure
    unsupported = structure.atoms.unsupported.get(node.name or "")
    if unsupported is not None:
        return Reason.UNSUPPORTED_FORM, f"{unsupported.op_type}: {unsupported.sentence}"
    own = [
        (structure.atoms.axes[value][axis], contracted)
        for value, uses in analysis.weights.items()
        for user, contracted, axis in uses
        if user == node.name
    ]
    if not own:
        return Reason.NOT_CONSTANT, "it multiplies two activations, or channels of its weight that nothing tracks"
    for atoms in (made for made, contracted in own if not contracted):
        lock = structure.lock_of(atoms)
        if lock is not None:
            code = Reason.LOCKED if lock.node else Reason.GRAPH_OUTPUT
            by = f"{lock.op_type} {lock.node}: " if lock.node else ""
            if structure.atoms.unsupported.get(lock.node) == lock:
                code = Reason.UNKNOWN_OPERATOR
            return code, f"its outputs can't be cut: {by}{lock.sentence}"
    return Reason.LOCKED, "a single channel, or channels that stand in different places, is nothing to choose from"
