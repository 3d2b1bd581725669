"""Everything a job needs, made ready: model, feeds, target, judge. What is odd about them is said in `notes`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import onnx_ir as ir

from onnxcomp.calibration.check import checked
from onnxcomp.calibration.readers import DataKind, Feed, Reader, as_reader
from onnxcomp.calibration.spec import open_spec, parse_spec
from onnxcomp.calibration.split import hold_out
from onnxcomp.driver.clock import Clock
from onnxcomp.driver.options import Ep, Options
from onnxcomp.driver.trial import runnable_shapes, shapes_of, table_limits, try_out
from onnxcomp.errors import UsageError
from onnxcomp.evaluate.gates import Gates
from onnxcomp.evaluate.judge import Judge
from onnxcomp.evaluate.metrics import Metric, find_metric
from onnxcomp.model import shapes
from onnxcomp.model.cost import subgraph_share
from onnxcomp.model.load import LoadedModel, ModelSource, load
from onnxcomp.model.normalize import clone, normalize
from onnxcomp.model.signature import Signature, signature
from onnxcomp.ops.draws import drawing
from onnxcomp.ops.targets import TARGETS, Target
from onnxcomp.passes.base import Context
from onnxcomp.passes.selection import unmatched
from onnxcomp.passes.simplify.simplify import Simplify, SimplifyConfig
from onnxcomp.report.figures import listed
from onnxcomp.report.structures import DataFacts, Note
from onnxcomp.report.text import meant
from onnxcomp.runtime.child import Limits
from onnxcomp.runtime.host import detect_host, detect_target
from onnxcomp.runtime.library import version as ort_version
from onnxcomp.runtime.providers import require
from onnxcomp.runtime.session import SessionConfig

RANDOM_FEEDS = 8
SHAPES_ONLY = SimplifyConfig(rules=("fold-constants", "remove-idle"))
PROBE_SECONDS = 600.0
DEFAULT_MAX_DROP = 0.01
"""Of the metric, where there are labels and no other gate was set."""


@dataclass
class Workbench:
    """A prepared job.

    Args:
        loaded: The user's model as it came through the door.
        canonical: Its canonical form, with fixed shapes if asked: what the first pass starts from.
        feed: One typical call; latencies are measured on it.
        judge: Compares candidates with the original.
        context: What passes may use.
        target_is_host: Whether the target is the machine that measures.
    """

    options: Options
    loaded: LoadedModel
    canonical: ir.Model
    feed: Feed
    judge: Judge
    context: Context
    target: Target
    target_is_host: bool
    calibration: Reader | None
    evaluation: Reader
    clock: Clock
    notes: list[Note] = field(default_factory=list)

    @property
    def without_data(self) -> bool:
        """No feeds were given: random ones stand in for judging."""
        return self.calibration is None and self.evaluation.kind is DataKind.RANDOM

    @cached_property
    def simplified(self) -> ir.Model:
        """The canonical model after exact rewrites: where passes on single operators start, and MACs can be counted."""
        return self.rewritten(self.canonical)

    @cached_property
    def folded(self) -> ir.Model:
        """The canonical model with its arithmetic on shapes done, and every weight and batch norm as it was: where
        passes start that judge channels."""
        return self.rewritten(self.canonical, SHAPES_ONLY)

    def rewritten(self, model: ir.Model, config: SimplifyConfig | None = None) -> ir.Model:
        """A model after exact rewrites, whatever --only and --exclude say."""
        return rewritten(model, self.context, config)

    @cached_property
    def calibration_facts(self) -> DataFacts | None:
        """Facts of the feeds to learn from; their digest reads every feed, so it is made once a job."""
        return data_facts(self.calibration)

    def second(self, source: ModelSource) -> LoadedModel:
        """Another model through the same door, tried in a child process like the first."""
        loaded = load(source, ort_version=ort_version())
        try_out(loaded.model, self.context.session, probe_limits(self.clock))
        return loaded

    def warn(self, sentence: str) -> None:
        self.notes.append(Note(level="warning", sentence=sentence))


def rewritten(model: ir.Model, context: Context, config: SimplifyConfig | None = None) -> ir.Model:
    """A model after exact rewrites, whatever --only and --exclude say."""
    everything = replace(context, only=(), exclude=())
    step = Simplify(config)
    return step.apply(model, step.plan(model, everything), everything)


def prepare(source: ModelSource, options: Options, gates: Gates) -> Workbench:
    """Loads the model, tries it in a child process, opens its feeds, and sets the gates.

    Raises:
        OnnxcompError: Whatever is wrong with the model, the data or the options, before any work is done.
    """
    clock = Clock(options.time_limit, options.progress)
    clock.report("loading", 0, None)
    require(options.ep)
    target, is_host = find_target(options.target, options.ep)
    loaded = load(source, ort_version=ort_version())
    threads = options.threads or detect_host().physical_cores
    config = SessionConfig(provider=options.ep, threads=threads, custom_ops=options.custom_ops)
    notes: list[Note] = []
    normalized = normalize(loaded.model)
    notes += [Note(level="info", sentence=s) for s in (*(f.sentence for f in loaded.findings), *normalized.notes)]
    check_patterns(normalized.model, (*options.only, *options.exclude))
    check_shape_names(signature(loaded.model), options.shape)
    calibration, evaluation, feed = _feeds(loaded.model, options, config, clock, notes)
    canonical = normalized.model
    if options.fix_shape:
        if not options.shape:
            raise UsageError("--fix-shape needs the shapes to fix", hint="give them with --shape NAME=1,3,224,224")
        canonical = clone(canonical)
        shapes.bind(canonical, shapes_of(feed))
    metric = _metric(options, evaluation, notes)
    if metric is not None and evaluation.labels is not None:
        allowed = DEFAULT_MAX_DROP if gates.max_drop is None else gates.max_drop
        notes += _coarse(metric, int(evaluation.labels.size), allowed)
    drawn = Counter(node.op_type for node in drawing(loaded.model))
    if drawn:
        sentence = f"the model draws random numbers ({listed(drawn)}): when two models are compared both draw the same"
        notes.append(Note(level="info", sentence=sentence))
    share = subgraph_share(canonical)
    if share > 0.01:
        sentence = f"{share:.0%} of the parameters sit inside If, Loop or Scan bodies, which are left as they are"
        notes.append(Note(level="info", sentence=sentence))
    if target.note:
        notes.append(Note(level="info", sentence=target.note))
    if not is_host:
        sentence = f"the target {target.name} is not this machine: what is measured here is UNVERIFIED for it"
        notes.append(Note(level="warning", sentence=sentence))
    judge = Judge(
        loaded.model,
        evaluation,
        config,
        gates,
        metric,
        lambda done, total: clock.report("comparing outputs", done, total),
    )
    context = Context(
        calibration=calibration,
        target=target,
        session=config,
        shapes=shapes_of(feed),
        feed=feed,
        only=options.only,
        exclude=options.exclude,
        portable=options.portable,
        seed=options.seed,
        progress=clock.report,
    )
    return Workbench(
        options, loaded, canonical, feed, judge, context, target, is_host, calibration, evaluation, clock, notes
    )


def check_patterns(model: ir.Model, patterns: Sequence[str]) -> None:
    """Every pattern of --only and --exclude matches some node.

    Raises:
        UsageError: One does not; suggests the nearest name.
    """
    for pattern in unmatched(model, patterns):
        hint = _nearest_node(model, pattern)
        raise UsageError(f"the pattern {pattern!r} matches no node and no operator type", hint=hint)


def check_shape_names(sign: Signature, shape: Mapping[str, tuple[int, ...]]) -> None:
    """Every name of --shape is an input or a dynamic dimension.

    Raises:
        UsageError: One is not; suggests the nearest name.
    """
    known = [*(p.name for p in sign.inputs), *sign.dynamic_symbols()]
    for name in shape:
        if name not in known:
            hint = meant(name, known) or f"there are {', '.join(known)}"
            raise UsageError(f"--shape: no input or dynamic dimension {name!r}", hint=hint)


def find_target(name: str, ep: Ep = "cpu") -> tuple[Target, bool]:
    """The target by name, and whether it is this machine with the provider that measures.

    Raises:
        UsageError: Unknown name.
    """
    here = "cuda" if ep == "cuda" else detect_target(detect_host())
    if name == "auto":
        return TARGETS[here], True
    if name not in TARGETS:
        raise UsageError(
            f"unknown target {name!r}",
            hint=meant(name, TARGETS) or f"one of auto, {', '.join(TARGETS)}",
        )
    return TARGETS[name], name == here


def data_facts(reader: Reader | None) -> DataFacts | None:
    """What the report says of a set of feeds; reads it once for the digest."""
    if reader is None:
        return None
    samples = reader.count if reader.count is not None else sum(1 for _ in reader)
    return DataFacts(
        kind=reader.kind.value,
        name=reader.name,
        samples=samples,
        labels=reader.labels is not None,
        sha256=reader.fingerprint(),
    )


def probe_limits(clock: Clock) -> Limits:
    """Of the child process in which a model is tried: what is left of the time for the job."""
    left = clock.remaining()
    return Limits(seconds=PROBE_SECONDS if left is None else max(1.0, min(left, PROBE_SECONDS)))


def open_feeds(
    source: object,
    model: ir.Model,
    sign: Signature,
    shape: Mapping[str, tuple[int, ...]],
    config: SessionConfig,
    seed: int,
    limits: Limits,
) -> Reader:
    """The feeds of a SPEC, a path, or any source that `as_reader` takes, each checked when it is read.

    Args:
        shape: Sizes of dynamic inputs, for random feeds; those are of sizes on which the model runs.
        limits: Of the child process that finds out.
    """
    if not isinstance(source, str):
        return checked(as_reader(source, sign), sign)
    if parse_spec(source).kind == "random":
        shape = runnable_shapes(model, sign, shape, config, seed, limits)
    return checked(open_spec(source, sign, shapes=shape, limits=table_limits(model), seed=seed), sign)


def _feeds(
    model: ir.Model, options: Options, config: SessionConfig, clock: Clock, notes: list[Note]
) -> tuple[Reader | None, Reader, Feed]:
    """Feeds to learn from and to judge by, and a typical one on which the model has run in a child process."""
    sign = signature(model)
    limits = probe_limits(clock)

    def opened(source: object) -> Reader:
        reader = open_feeds(source, model, sign, options.shape, config, options.seed, limits)
        notes.extend(Note(level="warning", sentence=s) for s in reader.notes)
        return reader

    calibration = None if options.calibration is None else opened(options.calibration)
    evaluation = None if options.eval is None else opened(options.eval)
    if evaluation is None and calibration is not None:
        calibration, evaluation, sentence = hold_out(calibration)
        if sentence is not None:
            notes.append(Note(level="warning", sentence=sentence))
    if evaluation is None:
        evaluation = opened(f"random:{RANDOM_FEEDS}")
        notes.append(
            Note(
                level="warning",
                sentence="RANDOM feeds: no data was given, so closeness to the original is shown on noise only",
            )
        )
        return None, evaluation, next(iter(evaluation))
    for reader in (calibration, evaluation):
        if reader is not None and reader.kind is DataKind.RANDOM:
            notes.append(
                Note(
                    level="warning",
                    sentence=f"RANDOM feeds ({reader.name}): ranges and closeness are not those of real inputs",
                )
            )
            break
    feed = next(iter(evaluation), None)
    if feed is None:
        raise UsageError("the evaluation set is empty", hint="give at least one feed with --eval")
    clock.report("trying the model in a child process", 0, None)
    try_out(model, config, limits, feed)
    return calibration, evaluation, feed


def _metric(options: Options, evaluation: Reader, notes: list[Note]) -> Metric | None:
    """The metric asked for; top1 by itself where the labels are single integers."""
    if options.metric is not None:
        return find_metric(options.metric)
    if evaluation.labels is None:
        if options.max_drop is not None:
            raise UsageError(
                "--max-drop needs labels, and the evaluation feeds have none",
                hint="put labels into the array y, or use --min-cosine",
            )
        return None
    if evaluation.labels.dtype.kind in "iu":
        return find_metric("top1")
    notes.append(
        Note(level="warning", sentence="the labels are not integers, so no metric is taken; name one with --metric")
    )
    return None


def _coarse(metric: Metric, samples: int, allowed: float) -> list[Note]:
    """Says so where the drop that is allowed is less than one sample."""
    if not metric.share or not allowed or samples * allowed >= 1:
        return []
    sentence = f"{samples} labelled samples: one of them is {1 / samples:.4f} of {metric.name}, more than the drop of "
    return [Note(level="warning", sentence=f"{sentence}{allowed:g} that is allowed; give more with --eval")]


def _nearest_node(model: ir.Model, pattern: str) -> str:
    names = [n.name or "" for n in model.graph] + sorted({n.op_type for n in model.graph})
    return meant(pattern, names) or "patterns are globs of node names or operator types, as 'Conv' or '/layer1/*'"
