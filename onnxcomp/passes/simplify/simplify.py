"""The pass: exact rewrites to a fixed point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

import onnx_ir as ir
from onnx_ir.passes import common
from pydantic import Field

from onnxcomp import __version__
from onnxcomp.model import shapes
from onnxcomp.model.fingerprint import structure_sha256
from onnxcomp.model.normalize import clone, name_values
from onnxcomp.model.save import weight_bytes
from onnxcomp.ops.upgrade import OLDEST_OPSET
from onnxcomp.passes.base import Context, Evidence, Plan, Proof
from onnxcomp.passes.selection import unselected
from onnxcomp.passes.simplify.affine import fold_affine
from onnxcomp.passes.simplify.edits import Action, Edit, Rule, Scope
from onnxcomp.passes.simplify.folding import DEFAULT_LIMIT, fold_constants
from onnxcomp.passes.simplify.gates import find_gates
from onnxcomp.passes.simplify.kernels import even_slopes, part_norms, pool_means
from onnxcomp.passes.simplify.padding import fold_pads
from onnxcomp.passes.simplify.removal import remove_idle
from onnxcomp.passes.simplify.scales import fold_scales
from onnxcomp.passes.simplify.sharing import share_equal
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import Record, Skip

RuleName = Literal[
    "fold-constants",
    "remove-idle",
    "fold-pads",
    "find-gates",
    "fold-affine",
    "fold-scales",
    "pool-means",
    "even-slopes",
    "part-norms",
    "share-equal",
]

RULES: dict[RuleName, tuple[Rule, Action]] = {
    "fold-constants": (fold_constants, "computed ahead of time"),
    "remove-idle": (remove_idle, "removed"),
    "fold-pads": (fold_pads, "folded into padding"),
    "find-gates": (find_gates, "written as one operator"),
    "fold-affine": (fold_affine, "folded into weights"),
    "fold-scales": (fold_scales, "folded into the weights behind it"),
    "pool-means": (pool_means, "written as pooling"),
    "even-slopes": (even_slopes, "written as a rectifier"),
    "part-norms": (part_norms, "kept apart from its norm"),
    "share-equal": (share_equal, "merged"),
}
"""In the order in which they run; each has an action of its own."""

BOLDEST_FIRST: tuple[RuleName, ...] = (
    "fold-scales",
    "fold-affine",
    "find-gates",
    "pool-means",
    "part-norms",
    "even-slopes",
    "fold-constants",
    "fold-pads",
    "share-equal",
    "remove-idle",
)
"""In the order in which they are given up: new weights first, and last what changes no number at all."""

POOLING_BYTES = 256
"""What a mean may weigh more as a pool: a Flatten and its names."""

FEW_BYTES = 64
"""What a model may weigh more all the same: an attribute, or a folded constant of a few elements."""

MAX_ROUNDS = 20
DEFAULT_GROWTH = 1024
LISTED = 4


class SimplifyConfig(Record):
    """Options of the pass. `fold_limit`: largest folded constant, in elements."""

    kind: Literal["simplify"] = Field(default="simplify", alias="pass")
    fold_limit: int = DEFAULT_LIMIT
    rules: tuple[RuleName, ...] = tuple(RULES)

    model_config = Record.model_config | {"populate_by_name": True}


class SimplifyPlan(Plan):
    """Which rules run, and what they will do.

    Taking a rule out of `rules`, or naming a node in `excluded`, changes what `apply` does; `edits` only tell.

    Args:
        growth: Bytes that a folded constant may have more than the constants that it replaces.
    """

    rules: tuple[RuleName, ...]
    fold_limit: int
    growth: int = DEFAULT_GROWTH
    excluded: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()

    def changes(self) -> frozenset[str]:
        return frozenset(edit.node for edit in self.edits)


class Simplify:
    """Folds and removes; the result computes the same up to float rounding, and is never larger but for a few names."""

    name = "simplify"
    needs_calibration = False
    plan_type = SimplifyPlan

    def __init__(self, config: SimplifyConfig | None = None) -> None:
        self.config = config or SimplifyConfig()

    def plan(self, model: ir.Model, ctx: Context) -> SimplifyPlan:
        """Tries the rules on a copy and writes down what they did."""
        plan = SimplifyPlan(
            pass_name=self.name,
            version=__version__,
            source_sha256=structure_sha256(model),
            target=ctx.target.name,
            rules=self.config.rules,
            fold_limit=self.config.fold_limit,
            excluded=tuple(sorted(unselected(model, ctx.only, ctx.exclude))),
        )
        opset = model.opset_imports.get("", OLDEST_OPSET)
        if opset < OLDEST_OPSET:
            why = f"opset {opset} is older than {OLDEST_OPSET}: its operators broadcast by other rules"
            return plan.model_copy(
                update={"skips": (Skip(node=model.graph.name or "", op_type="graph", code=Reason.OPSET, sentence=why),)}
            )
        before = _bytes(model)
        # Many small folded constants can together outweigh the nodes that they replace.
        for attempt in (
            plan,
            plan.model_copy(update={"growth": 0}),
            _without(_without(plan, "fold-affine"), "fold-scales", growth=0),
        ):
            result = clone(model)
            edits, skips = _run(result, attempt, ctx)
            pools = sum(e.action == "written as pooling" for e in edits)
            if _bytes(result) <= before + FEW_BYTES + POOLING_BYTES * pools:
                break
        return attempt.model_copy(update={"edits": tuple(edits), "skips": tuple(skips)})

    def apply(self, model: ir.Model, plan: SimplifyPlan, ctx: Context) -> ir.Model:
        """Runs the plan's rules to a fixed point, on a copy."""
        result = clone(model)
        if plan.rules and model.opset_imports.get("", OLDEST_OPSET) >= OLDEST_OPSET:
            _run(result, plan, ctx)
        return result

    def prove(self, before: ir.Model, after: ir.Model, plan: SimplifyPlan, ctx: Context) -> Proof:
        """Nothing beyond the proofs of every step: the driver compares the outputs on feeds."""
        return Proof(passed=True, sentences=tuple(summary(plan.edits)))

    def relax(self, plan: SimplifyPlan, evidence: Evidence[SimplifyPlan]) -> SimplifyPlan | None:
        """Without the boldest rule that is left."""
        return None if len(plan.rules) < 2 else _without(plan, min(plan.rules, key=BOLDEST_FIRST.index))


def summary(edits: Iterable[Edit]) -> list[str]:
    """One line for each action: `folded into weights: 55 BatchNormalization`.

    >>> folded = Edit(node="bn", op_type="BatchNormalization", action="folded into weights", sentence="…")
    >>> summary([folded])
    ['folded into weights: 1 BatchNormalization']
    """
    found: dict[Action, Counter[str]] = {action: Counter() for _, action in RULES.values()}
    for edit in edits:
        found[edit.action][edit.op_type] += 1
    lines = []
    for action, counts in sorted(found.items(), key=lambda item: -item[1].total()):
        kinds = [f"{n} {op_type}" for op_type, n in counts.most_common(LISTED)]
        more = f", … ({counts.total()} nodes)" if len(counts) > LISTED else ""
        if kinds:
            lines.append(f"{action}: {', '.join(kinds)}{more}")
    return lines


def _run(model: ir.Model, plan: SimplifyPlan, ctx: Context) -> tuple[list[Edit], list[Skip]]:
    """Edits until nothing changes; what the rules refuse in the last round is what they leave."""
    scope = Scope(frozenset(plan.excluded), plan.fold_limit, plan.growth, ctx.target.provider)
    edits: list[Edit] = []
    for _ in range(MAX_ROUNDS):
        skips: list[Skip] = []
        count = len(edits)
        for name in plan.rules:
            rule, _ = RULES[name]
            for finding in rule(model, scope):
                if isinstance(finding, Edit):
                    edits.append(finding)
                else:
                    skips.append(finding)
        common.RemoveUnusedNodesPass()(model)
        if len(edits) == count:
            break
        name_values(model)
        shapes.refresh(model, keep_foreign=True)
    return edits, skips


def _without(plan: SimplifyPlan, rule: RuleName, **update: int) -> SimplifyPlan:
    _, action = RULES[rule]
    kept = tuple(edit for edit in plan.edits if edit.action != action)
    return plan.model_copy(update={"rules": tuple(r for r in plan.rules if r != rule), "edits": kept, **update})


def _bytes(model: ir.Model) -> int:
    """About what the file weighs, its weights and its names; found without writing it."""
    # 20: field tags, dtype, dimensions and lengths of an initializer.
    initializers = sum(20 + len(name) for graph in model.graphs() for name in graph.initializers)
    nodes = sum(int(ir.serde.serialize_node(node).ByteSize()) for node in model.graph)
    values = (value for node in model.graph for value in node.outputs if value.shape is not None)
    return weight_bytes(model) + initializers + nodes + sum(int(ir.serde.serialize_value(v).ByteSize()) for v in values)
