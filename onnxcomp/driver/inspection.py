"""The job behind `inspect`: a model looked at, not changed, and by default not run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import onnx_ir as ir

from onnxcomp import __version__
from onnxcomp.calibration.random_feeds import resolve_shape
from onnxcomp.calibration.readers import Feed, Reader
from onnxcomp.driver.clock import Clock
from onnxcomp.driver.options import Ep
from onnxcomp.driver.prospects import READ_LIMIT, Material, prospects
from onnxcomp.driver.trial import shape_candidates, shapes_of, try_out
from onnxcomp.driver.workbench import check_patterns, check_shape_names, find_target, open_feeds, probe_limits
from onnxcomp.errors import UnavailableError, UsageError
from onnxcomp.model.cost import Cost, cost
from onnxcomp.model.load import LoadedModel, ModelSource, load
from onnxcomp.model.node_costs import NodeCost, dims
from onnxcomp.model.normalize import normalize
from onnxcomp.model.signature import Signature, signature
from onnxcomp.model.traits import traits
from onnxcomp.ops.limits import limits_of
from onnxcomp.passes.base import Context, Progress, no_progress
from onnxcomp.report.figures import size
from onnxcomp.report.inspection import Inspection, ModelFinding, NodeRow, OperatorRow, TensorFacts, Trait
from onnxcomp.report.structures import ModelFacts, Note
from onnxcomp.report.text import plural, printable
from onnxcomp.runtime.host import detect_host
from onnxcomp.runtime.packages import runtime_wheels
from onnxcomp.runtime.providers import require
from onnxcomp.runtime.session import SessionConfig


def inspect(
    model: ModelSource,
    calibration: object | None = None,
    *,
    target: str = "auto",
    ep: Ep = "cpu",
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    shape: Mapping[str, tuple[int, ...]] | None = None,
    threads: int = 0,
    seed: int = 0,
    time_limit: float | None = None,
    custom_ops: Sequence[Path] = (),
    progress: Progress = no_progress,
) -> Inspection:
    """What a model is made of, and what each pass could do with which nodes, and why not with the others.

    Args:
        model: Path, bytes, `onnx.ModelProto` or `onnx_ir.Model`.
        calibration: Feeds; with some the model is run, so that shapes and ranges are those of real calls.
        target: Machine that a result would be for.
        only: Globs of node names or operator types that passes might touch; `exclude`: leave alone.
        shape: Sizes of dynamic inputs, by input name or symbol.

    Other args: as `optimize`.

    Raises:
        onnxcomp.errors.OnnxcompError: Its class carries the exit code of the command line.
    """
    clock = Clock(time_limit, progress)
    clock.report("loading", 0, None)
    machine, is_host = find_target(target, ep)
    if ep != "cpu" or calibration is not None:
        require(ep)
    loaded = load(model, digest_limit=READ_LIMIT)
    sign = signature(loaded.model)
    given = _checked_shapes(sign, shape or {})
    clock.report("normalising", 0, None)
    normalized = normalize(loaded.model)
    check_patterns(normalized.model, (*only, *exclude))
    config = SessionConfig(provider=ep, threads=threads or detect_host().physical_cores, custom_ops=tuple(custom_ops))
    reader: Reader | None = None
    feed: Feed = {}
    if calibration is not None:
        reader, feed = _feeds(calibration, loaded.model, sign, given, config, seed, clock)
    context = Context(
        calibration=reader,
        target=machine,
        session=config,
        shapes=shapes_of(feed) if feed else next(shape_candidates(sign, given), {}),
        feed=feed,
        only=tuple(only),
        exclude=tuple(exclude),
        seed=seed,
        progress=clock.report,
    )
    totals = cost(loaded.model)
    material = Material(normalized.model, context, totals.weight_bytes)
    clock.report("counting", 0, None)
    costs = material.costs(material.canonical)
    findings = [*_versions(loaded.model), *traits(loaded, read_weights=material.readable)]
    findings += [ModelFinding(code=Trait.NOTED, level="info", sentence=s) for s in normalized.notes]
    clock.report("asking each pass", 0, None)
    return Inspection(
        version=__version__,
        target=machine.name,
        target_is_host=is_host,
        executed=bool(feed),
        model=_facts(loaded, totals, costs),
        inputs=_tensors(v for v in loaded.model.graph.inputs if not v.is_initializer()),
        outputs=_tensors(loaded.model.graph.outputs),
        shapes=dict(context.shapes),
        operators=_by_operator(costs),
        nodes=tuple(NodeRow.model_validate(asdict(c)) for c in costs),
        findings=(*findings, *_uncounted(costs)),
        prospects=tuple(prospects(material)),
        notes=tuple(_notes(loaded, reader, context, sign)),
        duration_s=round(clock.elapsed(), 3),
    )


def _checked_shapes(sign: Signature, shape: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes that were given, none of which contradicts the model."""
    check_shape_names(sign, shape)
    for port in sign.inputs:
        if port.name in shape:
            resolve_shape(port, shape)
    return dict(shape)


def _feeds(
    source: object,
    model: ir.Model,
    sign: Signature,
    given: Mapping[str, tuple[int, ...]],
    config: SessionConfig,
    seed: int,
    clock: Clock,
) -> tuple[Reader, Feed]:
    """The user's feeds, and the first of them, on which the model has run in a child process.

    Raises:
        UsageError: There is none.
    """
    clock.report("trying the model in a child process", 0, None)
    limits = probe_limits(clock)
    reader = open_feeds(source, model, sign, given, config, seed, limits)
    feed = next(iter(reader), None)
    if feed is None:
        raise UsageError("the calibration set is empty", hint="give at least one feed with --calibration")
    try_out(model, config, limits, feed)
    return reader, feed


def _facts(loaded: LoadedModel, totals: Cost, costs: Sequence[NodeCost]) -> ModelFacts:
    """Of the file; MACs are those of its canonical form, whose shapes are known best."""
    uncounted = sum(c.macs is None for c in costs)
    return ModelFacts(
        name=loaded.name,
        sha256=loaded.sha256,
        bytes=loaded.bytes,
        opset=loaded.model.opset_imports.get("", 0),
        ir_version=loaded.model.ir_version or 0,
        nodes=totals.nodes,
        parameters=totals.parameters,
        weight_bytes=totals.weight_bytes,
        macs=None if uncounted else sum(c.macs or 0 for c in costs),
        macs_unknown=uncounted,
        operators=totals.operators,
    )


def _uncounted(costs: Sequence[NodeCost]) -> Iterator[ModelFinding]:
    count = sum(c.macs is None for c in costs)
    if count:
        nodes = plural(count, "node")
        sentence = f"MACs unknown, because a shape is: {nodes}; --shape or --calibration may tell"
        yield ModelFinding(code=Trait.UNCOUNTED, level="warning", sentence=sentence)


def _versions(model: ir.Model) -> Iterator[ModelFinding]:
    """Opset and IR version, and whether the installed ONNX Runtime loads them."""
    opset, ir_version = model.opset_imports.get("", 0), model.ir_version or 0
    sentence = f"opset {opset}, IR version {ir_version}"
    for name, version in list(runtime_wheels().items())[:1]:
        try:
            newest = limits_of(version)
        except UnavailableError:
            continue
        if opset > newest.opset or ir_version > newest.ir_version:
            told = f"{sentence}: {name} {version} loads up to opset {newest.opset} and IR version {newest.ir_version}"
            yield ModelFinding(code=Trait.OPSET, level="warning", sentence=f"{told}, so all other verbs refuse it")
            return
    yield ModelFinding(code=Trait.OPSET, level="info", sentence=sentence)


def _tensors(values: Iterator[ir.Value] | Sequence[ir.Value]) -> tuple[TensorFacts, ...]:
    return tuple(
        TensorFacts(
            name=v.name or "",
            dtype=_type_name(v),
            shape=dims(v.shape),
        )
        for v in values
    )


def _type_name(value: ir.Value) -> str:
    """float, sequence of float, optional float."""
    name = "unknown" if value.dtype is None else value.dtype.name.lower()
    if isinstance(value.type, ir.SequenceType):
        return f"sequence of {name}"
    return f"optional {name}" if isinstance(value.type, ir.OptionalType) else name


def _by_operator(costs: Sequence[NodeCost]) -> tuple[OperatorRow, ...]:
    """Most MACs first, then most bytes, then most nodes."""
    groups: defaultdict[str, list[NodeCost]] = defaultdict(list)
    for found in costs:
        groups[found.op_type].append(found)
    rows = [
        OperatorRow(
            op_type=op_type,
            nodes=len(members),
            macs=sum(c.macs or 0 for c in members),
            uncounted=sum(c.macs is None for c in members),
            weight_bytes=sum(c.weight_bytes for c in members),
        )
        for op_type, members in groups.items()
    ]
    return tuple(sorted(rows, key=lambda r: (-r.macs, -r.weight_bytes, -r.nodes, r.op_type)))


def _notes(loaded: LoadedModel, reader: Reader | None, context: Context, sign: Signature) -> Iterator[Note]:
    for sentence in () if reader is None else reader.notes:
        yield Note(level="warning", sentence=sentence)
    if reader is not None and reader.kind.value == "random":
        yield Note(level="warning", sentence=f"RANDOM feeds ({reader.name}): ranges are not those of real inputs")
    dynamic = [p.name for p in sign.inputs if p.shape is None or any(not isinstance(d, int) for d in p.shape)]
    if dynamic and reader is None:
        shown = ", ".join(
            f"{printable(name, 40)} {'×'.join(map(str, context.shapes[name])) or 'scalar'}"
            for name in dynamic[:4]
            if name in context.shapes
        )
        more = f" and {len(dynamic) - 4} more" if len(dynamic) > 4 else ""
        if shown:
            yield Note(level="info", sentence=f"MACs are those of {shown}{more}; --shape gives other sizes")
    if not loaded.sha256:
        sentence = f"more than {size(READ_LIMIT)} of weights: they are not read, so there is no SHA-256 of the file"
        yield Note(level="info", sentence=sentence)
    if context.target.note:
        yield Note(level="info", sentence=context.target.note)
