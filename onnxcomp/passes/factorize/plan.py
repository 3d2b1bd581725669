"""The plan of a factorisation: the rank of every layer. Pure data: saved as JSON, edited by hand, replayed."""

from __future__ import annotations

from pydantic import Field, model_validator

from onnxcomp.passes.base import Plan
from onnxcomp.passes.factorize.config import Method, Refitting
from onnxcomp.passes.factorize.forms import Form
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import Layer, Record, Skip

FEWEST_ROWS = 2
"""Rows of calibration for each rank; with fewer the regularisation grows in proportion."""
POINTS = 48
"""Of a layer's spectrum in a report."""


class LayerPlan(Record):
    """One weight.

    Args:
        name: Of the first node that multiplies by it; `op_type`: its operator.
        nodes: All nodes that do.
        form: How it is split.
        rank: Channels between the two factors, in each group; None leaves it whole.
        groups, out, columns: Of W: groups, outputs of one group, inputs · taps of one group.
        break_even: The rank at which two factors are as large as the whole.
        rows: Rows of calibration that its directions are from; 0 without data.
        alpha: Regularisation that its directions are found with.
        energy: Share of its output's energy that is kept.
        loss: Predicted loss of the model's outputs, as a share of their variance (of this layer's, without data).
        energies: Share of the energy that rank 1, 2, … keeps in this form: the spectrum, summed up.
        code, why: Why it stays whole, if it does.
    """

    name: str
    op_type: str
    nodes: tuple[str, ...]
    form: Form = "channels"
    rank: int | None = Field(default=None, ge=1)
    groups: int
    out: int
    columns: int
    break_even: float
    rows: int = 0
    alpha: float = 0.0
    energy: float = 1.0
    loss: float = 0.0
    energies: tuple[float, ...] = ()
    code: Reason | None = None
    why: str = ""

    @model_validator(mode="after")
    def _valid(self) -> LayerPlan:
        if self.rank is not None and self.form == "channels" and self.rank > min(self.out, self.columns):
            largest = min(self.out, self.columns)
            raise ValueError(f"layer {self.name}: rank {self.rank} is more than that of the whole, {largest}")
        return self


class FactorizePlan(Plan):
    """Layers with their ranks, and every node that is none, with the reason.

    Args:
        method: Whose directions are kept.
        refit: What is done with the second factors.
        budget: What was asked for and what the plan predicts, in words.
        reached: Whether the prediction meets the budget.
        macs, params: Predicted share that remains.
        measured: Latencies that the plan was made from, if any: what → milliseconds.
    """

    layers: tuple[LayerPlan, ...]
    method: Method
    refit: Refitting
    budget: str = ""
    reached: bool = True
    macs: float | None = None
    params: float | None = None
    measured: dict[str, float] = Field(default_factory=dict)

    def changes(self) -> frozenset[str]:
        return frozenset(node for layer in self.layers if layer.rank is not None for node in layer.nodes)

    def left_alone(self) -> tuple[Skip, ...]:
        dense = (layer for layer in self.layers if layer.rank is None and layer.code is not None)
        own = (
            Skip(node=node, op_type=layer.op_type, code=layer.code, sentence=layer.why)
            for layer in dense
            if layer.code is not None
            for node in layer.nodes
        )
        return (*own, *self.skips)

    def aim(self) -> str:
        return self.budget or "as asked"

    def shortfall(self) -> str | None:
        return None if self.reached else self.budget

    def warnings(self) -> tuple[str, ...]:
        few = [x for x in self.layers if x.rank is not None and 0 < x.rows < FEWEST_ROWS * x.rank]
        if not few:
            return ()
        worst = min(few, key=lambda layer: layer.rows / (layer.rank or 1))
        have = "1 layer has" if len(few) == 1 else f"{len(few)} layers have"
        return (
            f"FEW SAMPLES: {have} fewer than {FEWEST_ROWS} rows of calibration for each rank "
            f"({worst.name}: {worst.rows} for rank {worst.rank}); directions are regularised more there",
        )

    def factored(self) -> tuple[Layer, ...]:
        return tuple(_described(layer) for layer in self.layers)

    def with_layers(self, layers: dict[str, LayerPlan]) -> FactorizePlan:
        """The same plan with some layers replaced."""
        return self.model_copy(update={"layers": tuple(layers.get(layer.name, layer) for layer in self.layers)})


def _described(layer: LayerPlan) -> Layer:
    ranks = sampled_ranks(len(layer.energies), layer.rank)
    return Layer(
        name=layer.name,
        op_type=layer.op_type,
        size=f"{layer.groups} × " * (layer.groups > 1) + f"{layer.out} × {layer.columns}",
        rank=layer.rank,
        break_even=round(layer.break_even, 1),
        form=layer.form,
        energy=layer.energy,
        loss=layer.loss,
        why=layer.why,
        ranks=ranks,
        energies=tuple(layer.energies[rank - 1] for rank in ranks),
    )


def sampled_ranks(full: int, rank: int | None, most: int = POINTS) -> tuple[int, ...]:
    """At most `most` ranks from 1 to `full`, `rank` among them; denser where they are low, since spectra fall there.

    >>> sampled_ranks(100, 8, most=6)
    (1, 7, 8, 26, 57, 100)
    """
    if not full:
        return ()
    chosen = set() if rank is None or rank > full else {rank}
    count = min(full, most - len(chosen))
    return tuple(sorted({1 + round((full - 1) * (i / max(1, count - 1)) ** 2) for i in range(count)} | chosen))
