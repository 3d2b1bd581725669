"""What a pass is: a frozen config and four functions, so that the decision can be read apart from the edit, and
retried.

plan(model, ctx) -> Plan              reads and decides; changes nothing
apply(model, plan, ctx) -> Model      does what the plan says, on a copy
prove(before, after, plan, ctx)       valid, and equal where it must be equal
relax(plan, evidence) -> Plan | None  the same plan with its worst units left as they were; None when nothing is left
to give
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

import onnx_ir as ir

from onnxcomp import __version__
from onnxcomp.calibration.readers import Feed, Reader
from onnxcomp.errors import UsageError
from onnxcomp.model.fingerprint import structure_sha256
from onnxcomp.ops.targets import Target
from onnxcomp.report.structures import ActivationRanges, Channels, FusionAudit, Layer, Record, Skip
from onnxcomp.runtime.session import SessionConfig

Progress = Callable[[str, int, int | None], None]
"""(stage, done, total when known): a front end draws it; the library prints nothing."""


CALIBRATION_HINT = "give some with --calibration data.npz (or images:DIR, a folder of .npz, random:64)"
"""What to do where a pass needs feeds and has none."""


def no_progress(stage: str, done: int, total: int | None) -> None:
    """The default: silence."""


@dataclass(frozen=True)
class Context:
    """What a pass may use.

    Args:
        calibration: Feeds to learn from; None without data.
        target: Facts of the machine that the result is for.
        session: How sessions are opened on this machine.
        shapes: Concrete input shapes of a typical call, for costs.
        feed: A typical call.
        only: Globs of node names or operator types; empty means all.
        exclude: Globs of node names or operator types to leave alone.
        portable: Only standard operators may be in the result.
    """

    calibration: Reader | None
    target: Target
    session: SessionConfig
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    feed: Feed = field(default_factory=dict)
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    portable: bool = False
    seed: int = 0
    progress: Progress = no_progress


class Plan(Record):
    """Header of every plan, and the skips with their reasons.

    Args:
        pass_name: The pass that made it.
        version: onnxcomp's.
        source_sha256: Of the model's canonical graph structure: a plan is replayed only on the model that it was made
            for.
        target: Name of the target.
    """

    plan_schema: str = "onnxcomp-plan/1"
    pass_name: str
    version: str
    source_sha256: str
    target: str
    skips: tuple[Skip, ...] = ()

    def changes(self) -> frozenset[str]:
        """Names of the nodes that the plan changes; empty when it does nothing."""
        raise NotImplementedError

    def left_alone(self) -> tuple[Skip, ...]:
        """Every node that stays as it was, with the reason."""
        return self.skips

    def aim(self) -> str:
        """What the plan is to reach, in words."""
        return "as asked"

    def shortfall(self) -> str | None:
        """What was asked for and can't be had, in words; None if nothing."""
        return None

    def warnings(self) -> tuple[str, ...]:
        """What the user should be warned of before trusting the result."""
        return ()

    def factored(self) -> tuple[Layer, ...]:
        """Layers with their ranks, for plans that factorise."""
        return ()

    def channels(self) -> tuple[Channels, ...]:
        """What is cut, for plans that cut channels."""
        return ()

    def ranges(self) -> ActivationRanges | None:
        """Ranges on their histograms, for plans that choose ranges and know what was seen."""
        return None


def header(pass_name: str, model: ir.Model, ctx: Context, skips: Iterable[Skip] = ()) -> dict[str, Any]:
    """The fields that every plan for `model` begins with."""
    return Plan(
        pass_name=pass_name,
        version=__version__,
        source_sha256=structure_sha256(model),
        target=ctx.target.name,
        skips=tuple(skips),
    ).model_dump()


def require_data(needing: Sequence[str], ctx: Context) -> None:
    """Whoever needs calibration feeds has them.

    Args:
        needing: What was asked for and can't do without; empty if nothing.

    Raises:
        UsageError: There are none.
    """
    if needing and ctx.calibration is None:
        raise UsageError(f"{' and '.join(needing)} can't be had without calibration data", hint=CALIBRATION_HINT)


@dataclass(frozen=True)
class Proof:
    """What was checked of a step, and how it ended.

    Args:
        passed: The result is valid (and equal, for exact passes).
        sentences: What was checked, or what failed.
        audit: What the runtime made of the result, where that can differ from the plan.
        unfused: Nodes that the plan changed in vain.
    """

    passed: bool
    sentences: tuple[str, ...]
    audit: FusionAudit | None = None
    unfused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What a pass could change, found from the graph alone: no feeds, no decision about how much.

    Args:
        nodes: Names of the nodes.
        skips: The others that it looked at, with the reason.
        detail: What would be done, in sentences.
    """

    nodes: frozenset[str]
    skips: tuple[Skip, ...]
    detail: tuple[str, ...] = ()


PlanT = TypeVar("PlanT", bound=Plan)


@dataclass(frozen=True)
class Evidence(Generic[PlanT]):
    """Why a step has to give something back.

    Args:
        failed: Which gate.
        error: Measured 1 − cosine (worst output), and `allowed` what the gate allows, for "fidelity".
        nodes: Nodes that brought nothing, for "fusion".
        error_of: Error of another plan on a few feeds, for "fidelity".
        latencies_of: Latencies of other plans, each over that of the plan that failed, measured beside it; None where
            the target can't be measured here.
        progress: Told of long measurements.
    """

    failed: Literal["fidelity", "latency", "fusion", "proof"]
    error: float = 0.0
    allowed: float = 0.0
    nodes: tuple[str, ...] = ()
    error_of: Callable[[PlanT], float] | None = None
    latencies_of: Callable[[Sequence[PlanT]], list[float]] | None = None
    progress: Progress = no_progress


class Pass(Protocol[PlanT]):
    """One family of edits."""

    name: str
    needs_calibration: bool
    plan_type: type[PlanT]

    def plan(self, model: ir.Model, ctx: Context) -> PlanT: ...

    def apply(self, model: ir.Model, plan: PlanT, ctx: Context) -> ir.Model: ...

    def prove(self, before: ir.Model, after: ir.Model, plan: PlanT, ctx: Context) -> Proof: ...

    def relax(self, plan: PlanT, evidence: Evidence[PlanT]) -> PlanT | None: ...
