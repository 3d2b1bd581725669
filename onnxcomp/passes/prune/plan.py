"""The pruning plan: which channels each cell keeps. Pure data: saved as JSON, edited by hand, replayed."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from onnxcomp.passes.base import Plan
from onnxcomp.passes.prune.importance import Importance
from onnxcomp.report.structures import Channels, Record

Refitting = Literal["least-squares", "none"]


class CellPlan(Record):
    """Channels that are chosen among each other.

    Args:
        name: Of the first node with a weight that makes them.
        size: Classes of channels; a class is what has to go together (one channel of each weight involved, a whole
            attention head, …).
        keep: Which classes stay, ascending.
        exact: The pruned model equals the original with these channels masked; otherwise some operator takes
            statistics over them (layer norm), and the others change a little.
        loss: Predicted loss of this cut, in the unit of the importance.
        order: The order in which classes would go.
        producers, consumers: Nodes whose weights lose outputs; nodes whose weights lose inputs.
        coupled_by: Nodes that couple the channels of different weights.
        why: Why the cell stays whole, if it does.
    """

    name: str
    size: int
    keep: tuple[int, ...]
    exact: bool
    loss: float = 0.0
    order: tuple[int, ...] = ()
    producers: tuple[str, ...] = ()
    consumers: tuple[str, ...] = ()
    coupled_by: tuple[str, ...] = ()
    why: str = ""

    @model_validator(mode="after")
    def _valid(self) -> CellPlan:
        if not self.keep:
            raise ValueError(f"cell {self.name} keeps nothing: at least one class has to stay")
        if sorted(set(self.keep)) != list(self.keep) or self.keep[0] < 0 or self.keep[-1] >= self.size:
            raise ValueError(f"cell {self.name}: keep must be ascending numbers from 0 to {self.size - 1}, each once")
        return self

    @property
    def cut(self) -> bool:
        return len(self.keep) < self.size


class PrunePlan(Plan):
    """Cells with what they keep, and every node whose channels can't go, with the operator that keeps them.

    Args:
        importance: How channels were ranked.
        refit: What is done with the weights that stay.
        budget: What was asked for and what the plan predicts, in words.
        reached: Whether the prediction meets the budget.
        macs, params: Predicted share that remains.
        measured: Latencies that the plan was made from, if any: node and channels → milliseconds.
    """

    cells: tuple[CellPlan, ...]
    importance: Importance
    refit: Refitting
    budget: str = ""
    reached: bool = True
    macs: float | None = None
    params: float | None = None
    measured: dict[str, float] = Field(default_factory=dict)

    def changes(self) -> frozenset[str]:
        return frozenset(name for cell in self.cells if cell.cut for name in (*cell.producers, *cell.consumers))

    def aim(self) -> str:
        return self.budget or "as asked"

    def shortfall(self) -> str | None:
        return None if self.reached else self.budget

    def channels(self) -> tuple[Channels, ...]:
        return tuple(
            Channels(name=c.name, size=c.size, kept=len(c.keep), exact=c.exact, loss=c.loss, why=c.why)
            for c in self.cells
        )

    def keep(self) -> dict[str, np.ndarray]:
        """Cell → classes that stay, for the cells that lose some."""
        return {cell.name: np.asarray(cell.keep) for cell in self.cells if cell.cut}

    def explain(self, node: str) -> list[str]:
        """What happens to the channels of a node and why, one sentence each.

        Raises:
            KeyError: The plan knows no such node.
        """
        sentences = []
        for cell in self.cells:
            for names, what in ((cell.producers, "outputs"), (cell.consumers, "inputs")):
                if node in names:
                    sentences.append(f"{what}: {_told(cell, node)}")
        sentences += [f"outputs: {skip.sentence}" for skip in self.skips if skip.node == node]
        if not sentences:
            raise KeyError(f"the plan knows no node {node!r} with a weight")
        return sentences

    def with_cells(self, cells: dict[str, CellPlan]) -> PrunePlan:
        """The same plan with some cells replaced."""
        return self.model_copy(update={"cells": tuple(cells.get(cell.name, cell) for cell in self.cells)})


def _told(cell: CellPlan, node: str) -> str:
    kept = f"{len(cell.keep)} of {cell.size} stay in cell {cell.name}"
    if not cell.cut and cell.why:
        kept += f" ({cell.why})"
    others = [n for n in dict.fromkeys((*cell.producers, *cell.consumers)) if n != node]
    if others:
        kept += f"; they go together with {_listed(others)}"
    if cell.coupled_by:
        kept += f", coupled by {_listed(cell.coupled_by)}"
    return kept if cell.exact else f"{kept}; approximate: an operator takes statistics over them"


def _listed(names: list[str] | tuple[str, ...], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
