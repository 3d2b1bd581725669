"""The pass: exact rewrites to a fixed point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal

import onnx_ir as ir
from onnx_ir.passes import common
from pydantic import Field

from onnxcomp import __version__
from onnxcomp.model import shapes
from onnxcomp.model.fingerprint import structure_sha256
from onnxcomp.model.normalize import clone
from onnxcomp.passes.base import Context, Evidence, Plan, Proof
from onnxcomp.passes.selection import unselected
from onnxcomp.passes.simplify.affine import fold_affine
from onnxcomp.passes.simplify.folding import DEFAULT_LIMIT, fold_constants
from onnxcomp.passes.simplify.removal import fold_pads, remove_idle
from onnxcomp.report.structures import Record

RuleName = Literal["fold-constants", "remove-idle", "fold-pads", "fold-affine", "share-equal"]
Edits = Iterator[tuple[ir.Node, str]]

RULES: dict[RuleName, Callable[[ir.Model, frozenset[str], int], Edits]] = {
    "fold-constants": fold_constants,
    "remove-idle": lambda model, excluded, limit: remove_idle(model, excluded),
    "fold-pads": lambda model, excluded, limit: fold_pads(model, excluded),
    "fold-affine": lambda model, excluded, limit: fold_affine(model, excluded),
    "share-equal": lambda model, excluded, limit: _share_equal(model),
}
"""In the order in which they run."""

MAX_ROUNDS = 20


class SimplifyConfig(Record):
    """Options of the pass. `fold_limit`: largest folded constant, in elements."""

    kind: Literal["simplify"] = Field(default="simplify", alias="pass")
    fold_limit: int = DEFAULT_LIMIT
    rules: tuple[RuleName, ...] = tuple(RULES)

    model_config = Record.model_config | {"populate_by_name": True}


class Edit(Record):
    """One edit: the node that goes, and what becomes of it."""

    node: str
    op_type: str
    sentence: str


class SimplifyPlan(Plan):
    """Which rules run, and what they will do. Taking a rule out of `rules`, or naming a node in `excluded`, changes what `apply` does."""

    rules: tuple[RuleName, ...]
    fold_limit: int
    excluded: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()

    def changes(self) -> frozenset[str]:
        return frozenset(edit.node for edit in self.edits)


class Simplify:
    """Folds and removes; the result computes the same up to float rounding."""

    name = "simplify"
    needs_calibration = False

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
        edits = tuple(Edit(node=n.name or "", op_type=n.op_type, sentence=s) for n, s in _run(clone(model), plan))
        return plan.model_copy(update={"edits": edits})

    def apply(self, model: ir.Model, plan: SimplifyPlan, ctx: Context) -> ir.Model:
        """Runs the plan's rules to a fixed point, on a copy."""
        result = clone(model)
        for _ in _run(result, plan):
            pass
        return result

    def prove(self, before: ir.Model, after: ir.Model, plan: SimplifyPlan, ctx: Context) -> Proof:
        """Nothing beyond the proofs of every step: the driver compares the outputs on feeds."""
        counts = Counter(e.sentence.split(" folded")[0].split(" that")[0] for e in plan.edits)
        return Proof(passed=True, sentences=tuple(f"{n} × {what}" for what, n in counts.most_common()))

    def relax(self, plan: SimplifyPlan, evidence: Evidence[SimplifyPlan]) -> SimplifyPlan | None:
        """Without the last rule, which is the boldest that is left."""
        return plan.model_copy(update={"rules": plan.rules[:-1]}) if len(plan.rules) > 1 else None


def _run(model: ir.Model, plan: SimplifyPlan) -> Edits:
    excluded = frozenset(plan.excluded)
    for _ in range(MAX_ROUNDS):
        changed = False
        for rule in plan.rules:
            for node, sentence in RULES[rule](model, excluded, plan.fold_limit):
                changed = True
                yield node, sentence
        common.RemoveUnusedNodesPass()(model)
        if not changed:
            return
        shapes.refresh(model)


def _share_equal(model: ir.Model) -> Edits:
    """Equal nodes on equal inputs, and equal small initializers, are kept once."""
    before = {id(n): n for n in model.graph}
    common.DeduplicateInitializersPass()(model)
    common.CommonSubexpressionEliminationPass()(model)
    after = {id(n) for n in model.graph}
    for key, node in before.items():
        if key not in after:
            yield node, f"{node.op_type} that repeats another removed"
