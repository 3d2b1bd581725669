"""The conformance cases of onnx itself, for every operator that folding, removal or lifting knows: nothing breaks.

Each case runs as it is, with its first input as a constant, and with all of them as constants, a Cast keeping its
outputs from being outputs of the graph. ONNX Runtime on the original is the reference; what it can't run is
passed over.
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from collections.abc import Iterator
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import context, run
from onnx.backend.test.case import node
from onnx.backend.test.case.test_case import TestCase

from onnxcomp.errors import OnnxcompError
from onnxcomp.model.normalize import normalize
from onnxcomp.model.save import serialize
from onnxcomp.ops.evaluator import EVALUATIONS
from onnxcomp.ops.upgrade import RULES
from onnxcomp.passes.simplify.affine import FOLDS_INTO, NORM
from onnxcomp.passes.simplify.removal import DOES_NOTHING
from onnxcomp.passes.simplify.simplify import FEW_BYTES, Simplify

OPERATORS = {*EVALUATIONS, *DOES_NOTHING, *FOLDS_INTO, NORM, "Shape", "Size", *(op_type for op_type, _ in RULES)}
NEWEST_OPSET = 23
RANDOM = ("training_dropout", "bernoulli")


MODULES = {op_type.lower() for op_type in OPERATORS} | {"batchnorm"}


@cache
def _cases() -> tuple[TestCase, ...]:
    """Importing a module of the package makes its cases; all of them would take half a minute."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in pkgutil.iter_modules(node.__path__):
            if module.name.replace("_", "") in MODULES:
                importlib.import_module(f"{node.__name__}.{module.name}")
    return tuple(node._NodeTestCases)


def _loaded(case: TestCase) -> tuple[onnx.ModelProto, dict[str, np.ndarray]] | None:
    """The model and its feed; None for random results, and for types that numpy does not have."""
    model = case.model
    opset = max(o.version for o in model.opset_import if o.domain == "")
    if opset > NEWEST_OPSET or any(word in case.name for word in RANDOM):
        return None
    arrays = case.data_sets[0][0]
    feed = {v.name: a for v, a in zip(model.graph.input, arrays, strict=False)}
    fits = all(isinstance(a, np.ndarray | np.generic) and a.dtype.kind in "biuf" for a in feed.values())
    return (model, {name: np.asarray(a) for name, a in feed.items()}) if fits else None


def _with_constants(model: onnx.ModelProto, feed: dict[str, np.ndarray], count: int) -> ir.Model:
    """The first `count` inputs as initializers; if that is all of them, each output behind a Cast to double."""
    result = ir.from_proto(model)
    for value in list(result.graph.inputs)[:count]:
        result.graph.inputs.remove(value)
        value.const_value = ir.tensor(feed[value.name], name=value.name)
        result.graph.register_initializer(value)
    if not result.graph.inputs:
        for k, value in enumerate(result.graph.outputs):
            cast = ir.node("Cast", [value], {"to": 11 if value.dtype != ir.DataType.DOUBLE else 1})
            cast.outputs[0].name = f"cast_{k}"
            cast.outputs[0].dtype = ir.DataType.DOUBLE if value.dtype != ir.DataType.DOUBLE else ir.DataType.FLOAT
            result.graph.append(cast)
            result.graph.outputs[k] = cast.outputs[0]
    return result


def _variants(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> Iterator[ir.Model]:
    for count in sorted({0, min(1, len(feed)), len(feed)}):
        yield _with_constants(model, feed, count)


def _holds(model: ir.Model, feed: dict[str, np.ndarray]) -> int | None:
    """Number of edits; None if the runtime can't run the model as it is."""
    given = {v.name: feed[v.name] for v in model.graph.inputs}
    try:
        expected = run(model, given)
    except OnnxcompError:
        return None
    before = normalize(model).model
    step, ctx = Simplify(), context([given])
    plan = step.plan(before, ctx)
    after = step.apply(before, plan, ctx)
    assert len(serialize(after)) <= len(serialize(before)) + FEW_BYTES
    for a, b in zip(expected, run(after, given), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(
            a.astype(np.float64), b.astype(np.float64), rtol=2e-3 if a.dtype == np.float16 else 1e-5, atol=1e-5
        )
    return len(plan.edits)


@pytest.mark.parametrize("part", range(4))
def test_conformance_cases_compute_the_same_after_normalize_and_simplify(part):
    ran = edited = 0
    broken = []
    for case in _cases()[part::4]:
        loaded = _loaded(case)
        if loaded is None:
            continue
        model, feed = loaded
        for k, variant in enumerate(_variants(model, feed)):
            try:
                edits = _holds(variant, feed)
            except Exception as error:
                broken.append(f"{case.name} #{k}: {type(error).__name__}: {str(error)[:300]}")
                continue
            ran += edits is not None
            edited += bool(edits)
    assert broken == []
    assert ran > 250
    assert edited > 50
