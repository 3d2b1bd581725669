"""What `fuzz.py --stage passes` does with an input that load and normalise let through, and its seeds.

Each pass decides and edits, as far as that needs no ONNX Runtime: `inspect`, simplify, prune (channels ranked by their
weights, shapes from inference), factorise (by the SVD of weights), dynamic INT8, weights in 4 bits (ONNX Runtime's
operators and ONNX's), fp16, bf16. In the tool itself a child process has run the model before most of these meet it.

A step passes if it gives a model, which is saved, or raises an `OnnxcompError` of exit code 4. Of an input that
`onnx.checker` and onnx's strict inference accept, and that ONNX Runtime runs on random feeds, the model must load
again, pass `onnx.checker` and run too; after simplify its outputs must be the same.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from onnxcomp.driver.inspection import inspect
from onnxcomp.driver.prospects import Material, _twice
from onnxcomp.driver.trial import shape_candidates
from onnxcomp.errors import ModelError, OnnxcompError
from onnxcomp.model import shapes
from onnxcomp.model.cost import cost
from onnxcomp.model.load import load
from onnxcomp.model.normalize import normalize
from onnxcomp.model.save import save_model
from onnxcomp.model.signature import signature
from onnxcomp.ops.targets import TARGETS
from onnxcomp.passes.base import Context, Pass
from onnxcomp.passes.dynamic.config import DynamicConfig
from onnxcomp.passes.dynamic.dynamic import Dynamic
from onnxcomp.passes.factorize.config import FactorizeConfig
from onnxcomp.passes.factorize.factorize import Factorize
from onnxcomp.passes.factorize.known import Known
from onnxcomp.passes.factorize.sites import find_sites
from onnxcomp.passes.precision.precision import Precision, PrecisionConfig
from onnxcomp.passes.prune.analysis import analyse_shapes
from onnxcomp.passes.prune.choice import choose
from onnxcomp.passes.prune.config import PruneConfig
from onnxcomp.passes.prune.ranking import ranked
from onnxcomp.passes.prune.rewrite import rewrite
from onnxcomp.passes.simplify.simplify import Simplify
from onnxcomp.passes.weight_only.config import WeightOnlyConfig
from onnxcomp.passes.weight_only.weight_only import WeightOnly
from onnxcomp.runtime.library import onnxruntime
from onnxcomp.runtime.session import SessionConfig

ROOT = Path(__file__).parents[1]
PIECE_BYTES = 6_000
PIECE_NODES = 8
PIECES = 12
"""Pieces that a model given on the command line is cut into, at most."""

UNSURE = frozenset(
    [
        "Loop",
        "Scan",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Multinomial",
        "Bernoulli",
    ]
)
"""Operators that may run for long, or give another result each time."""

DTYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}
Shapes = Mapping[str, tuple[int, ...]]
Step = Callable[[Material], ir.Model | None]


class Broken(Exception):
    """A result that can't be right."""


@dataclass(frozen=True)
class Answer:
    """How a step answered: done, refused, or what failed, with where."""

    step: str
    outcome: str
    error: BaseException | None = None


def _through(step: Pass, material: Material) -> ir.Model | None:  # type: ignore[type-arg]
    model, context = material.simplified, material.context
    plan = step.plan(model, context)
    return step.apply(model, plan, context) if plan.changes() else None


def _portable(material: Material) -> ir.Model | None:
    context = replace(material.context, portable=True)
    step = WeightOnly(WeightOnlyConfig(smallest=1, block=16, method="rtn"))
    return _through(step, Material(material.simplified, context, 0))


def _simplify(material: Material) -> ir.Model:
    step, model, context = Simplify(), material.canonical, material.context
    return step.apply(model, step.plan(model, context), context)


def _prune(material: Material) -> ir.Model | None:
    model, context = material.folded, material.context
    if not context.shapes:
        return None
    larger = _twice(model, context.shapes)
    calls = [{**material.called(given), **shapes.in_call(model, given)} for given in (context.shapes, larger)]
    analysis = analyse_shapes(model, *calls)
    removals = ranked(model, analysis, "l1", context)
    choice = choose(model, analysis, removals, PruneConfig(ratio=0.5, round_to=1), context)
    return rewrite(model, analysis, choice.keep())[0] if choice.keep() else None


def _factorize(material: Material) -> ir.Model | None:
    model, context = material.simplified, material.context
    step = Factorize(FactorizeConfig(params=0.6, round_to=1, allow_slower=True))
    sites, skips = find_sites(model, (), ())
    step._known = Known(model, {site.name: site for site in sites}, skips, material.shapes)
    plan = step.plan(model, context)
    return step.apply(model, plan, context) if plan.changes() else None


STEPS: dict[str, Step] = {
    "simplify": _simplify,
    "prune": _prune,
    "factorize": _factorize,
    "dynamic": partial(_through, Dynamic(DynamicConfig(smallest=1))),
    "weight-only": partial(_through, WeightOnly(WeightOnlyConfig(smallest=1, block=16, method="mse"))),
    "weight-only, portable": _portable,
    "fp16": partial(_through, Precision(PrecisionConfig(dtype="fp16"))),
    "bf16": partial(_through, Precision(PrecisionConfig(dtype="bf16"))),
}


def answers(path: Path, out: Path) -> Iterator[Answer]:
    """Of load and normalise, then of each step."""
    try:
        loaded = load(path, ort_version="1.31.0")
        canonical = normalize(loaded.model).model
    except OnnxcompError as error:
        yield _refused("door", error)
        return
    yield Answer("door", "done")
    try:
        inspect(path)
        yield Answer("inspect", "done")
    except OnnxcompError as error:
        yield _refused("inspect", error)
    except Exception as error:
        yield Answer("inspect", "FAILED", error)
    given = next(shape_candidates(signature(loaded.model), {}), {})
    context = Context(None, TARGETS["cpu-vnni"], SessionConfig(threads=1), shapes=given)
    outputs = _outputs_of_sound(path, canonical, given)
    material = Material(canonical, context, cost(loaded.model).weight_bytes)
    for name, step in STEPS.items():
        try:
            result = step(material)
            if result is not None:
                save_model(result, out, overwrite=True)
                if outputs is not None:
                    _check(out, name, given, outputs)
            yield Answer(name, "done")
        except OnnxcompError as error:
            yield _refused(name, error)
        except Exception as error:
            yield Answer(name, "FAILED", error)


def _refused(step: str, error: OnnxcompError) -> Answer:
    return Answer(step, "refused") if error.exit_code == ModelError.exit_code else Answer(step, "FAILED", error)


def _check(out: Path, name: str, given: Shapes, outputs: Sequence[np.ndarray]) -> None:
    try:
        load(out, ort_version="1.31.0")
        onnx.checker.check_model(out)
        # ONNX Runtime's CPU provider has no products of bfloat16.
        found = _isolated(out, given) if name != "bf16" else []
    except OnnxcompError as error:
        raise Broken(f"what was saved is refused: {error.message}") from error
    except Exception as error:  # whatever onnx or ONNX Runtime have against it
        if "Failed to allocate memory" in str(error):
            return
        raise Broken(" ".join(str(error).split())[:300]) from error
    for one, other in zip(outputs, found, strict=False) if name == "simplify" else ():
        same = one.shape == other.shape and one.dtype == other.dtype
        if not same or (one.dtype.kind in "fiub" and not np.allclose(one, other, 1e-3, 1e-4 * _largest(one), True)):
            raise Broken(f"another output: {one.dtype} {one.shape}, {other.dtype} {other.shape}")


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array[np.isfinite(array)], dtype=np.float64).max(initial=1.0))


def _outputs_of_sound(path: Path, model: ir.Model, given: Shapes) -> list[np.ndarray] | None:
    """What the model computes; None of one that something is wrong with, or that is not the same or long each time."""
    if any(node.op_type in UNSURE for node in model.graph.all_nodes()):
        return None
    try:
        onnx.checker.check_model(path)
        onnx.shape_inference.infer_shapes(onnx.load(path), check_type=True, strict_mode=True, data_prop=True)
        return _isolated(path, given)
    except Exception:  # whatever they have against it
        return None


def _isolated(path: Path, given: Shapes) -> list[np.ndarray]:
    """In a process of its own: ONNX Runtime's kernels crash on some of these models."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        try:
            answer: object = _run(path, given)
        except BaseException as error:
            answer = str(error)
        with os.fdopen(sender, "wb") as stream:
            pickle.dump(answer, stream)
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as stream:
        content = stream.read()
    os.waitpid(child, 0)
    found = pickle.loads(content) if content else "ONNX Runtime ended the process"
    if isinstance(found, str):
        raise RuntimeError(found)
    return found


def _run(path: Path, given: Shapes) -> list[np.ndarray]:
    library = onnxruntime()
    options = library.SessionOptions()
    options.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = library.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feed = {}
    for port in session.get_inputs():
        dtype = DTYPES[port.type]
        values = rng.standard_normal(given[port.name])
        feed[port.name] = np.asarray(values > 0 if dtype is not np.float32 else values, dtype)
    return [np.asarray(o) for o in session.run(None, feed)]


def seeds_of_passes(models: Iterable[Path]) -> list[bytes]:
    """Topologies of the tests, and pieces of `models`; weights thinned until a seed is small."""
    sys.path.insert(0, str(ROOT / "tests"))
    from prune_topologies import TOPOLOGIES

    found = []
    for _, topology in sorted(TOPOLOGIES.items()):
        proto = onnx.shape_inference.infer_shapes(ir.to_proto(topology.build()))
        parts = [proto] if len(proto.graph.node) <= 2 * PIECE_NODES else pieces(proto)
        found += [thinned(part) for part in parts]
    for path in models:
        found += pieces(onnx.load(path))
    return [content for p in found if len(content := p.SerializeToString(deterministic=True)) < 4 * PIECE_BYTES]


def pieces(proto: onnx.ModelProto) -> Iterator[onnx.ModelProto]:
    """Runs of neighbouring nodes with what they read, evenly from the whole model."""
    nodes = proto.graph.node
    known = {v.name: v for v in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)}
    tensors = {t.name: t for t in proto.graph.initializer}
    for node in nodes:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    for begin in range(0, len(nodes), max(PIECE_NODES, len(nodes) // PIECES)):
        part = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions)
        part.graph.name = "piece"
        part.graph.node.extend(n for n in nodes[begin : begin + PIECE_NODES] if n.op_type != "Constant")
        made = {o for n in part.graph.node for o in n.output if o}
        read = dict.fromkeys(i for n in part.graph.node for i in n.input if i and i not in made)
        for name in read:
            if name in tensors:
                part.graph.initializer.add().CopyFrom(tensors[name])
                part.graph.initializer[-1].name = name
            elif name in known:
                part.graph.input.add().CopyFrom(known[name])
            else:
                part.graph.input.append(onnx.helper.make_tensor_value_info(name, 1, None))
        inside = {i for n in part.graph.node for i in n.input}
        for name in sorted(made - inside):
            part.graph.output.add().CopyFrom(known.get(name, onnx.helper.make_tensor_value_info(name, 1, None)))
        if part.graph.output:
            yield thinned(part)


def thinned(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model, small."""
    for _ in range(8):
        if proto.ByteSize() > PIECE_BYTES:
            thin(proto)
    return proto


def thin(proto: onnx.ModelProto) -> None:
    """Every size of 16 or more that 2 divides becomes half of itself, in weights, inputs, sizes and attributes."""

    def less(size: int) -> int:
        return size // 2 if 16 <= size < 2**20 and size % 2 == 0 else size

    del proto.graph.value_info[:]
    for info in (*proto.graph.input, *proto.graph.output):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_value:
                dim.dim_value = less(dim.dim_value)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        name = tensor.name
        if array.dtype == np.int64 and array.size < 9:
            array = np.vectorize(less, otypes=[np.int64])(array) if array.size else array
        array = array[tuple(slice(less(size)) for size in array.shape)]
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(array, order="C"), name))
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("group", "hidden_size", "num_heads"):
                attribute.i = less(attribute.i)
