"""Every operator of the evaluator is held against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph, run

from onnxcomp.ops.evaluator import EVALUATIONS, CannotEvaluate, TooLarge, evaluate, move

F, I64, B = np.float32, np.int64, np.bool_
X = np.arange(24, dtype=F).reshape(2, 3, 4) - 7.5
V = np.arange(5, dtype=F)
LOW, HIGH = np.iinfo(I64).min, np.iinfo(I64).max
NAMES = {
    F: "float",
    I64: "int64",
    B: "bool",
    np.int32: "int32",
    np.uint8: "uint8",
    np.float16: "float16",
    np.int8: "int8",
}
NAMES |= {np.float64: "double", np.uint32: "uint32", np.uint64: "uint64"}


def _node(call: str, arrays: list[np.ndarray | None], opset: int, outputs: int) -> tuple[ir.Model, ir.Node]:
    inputs = ", ".join(
        f"{NAMES[a.dtype.type]}[{','.join(map(str, a.shape))}] i{k}" if a.ndim else f"{NAMES[a.dtype.type]} i{k}"
        for k, a in enumerate(arrays)
        if a is not None
    )
    names = [f"o{k}" for k in range(outputs)]
    given = ", ".join("" if a is None else f"i{k}" for k, a in enumerate(arrays))
    declared = ", ".join(f"float[r{n}] {n}" for n in names)
    text = f"g ({inputs}) => ({declared}) {{ {', '.join(names)} = {call}({given}) }}"
    model = graph(text, opset=opset)
    for value in model.graph.outputs:  # types and ranks are left to inference
        value.type, value.shape = None, None
    return model, model.graph[0]


def _equals_the_runtime(call: str, arrays: list[np.ndarray | None], opset: int = 17, outputs: int = 1) -> None:
    model, node = _node(call, arrays, opset, outputs)
    mine = evaluate(node, arrays, 10**6)
    for value, array in zip(model.graph.outputs, mine, strict=True):
        value.dtype = ir.DataType.from_numpy(array.dtype)
    expected = run(model, {f"i{k}": a for k, a in enumerate(arrays) if a is not None})
    for a, b in zip(expected, mine, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def i(*values: int) -> np.ndarray:
    return np.asarray(values, I64)


@pytest.mark.parametrize(
    ("call", "arrays", "opset"),
    [
        # Slice: negative steps, ends far outside, starts far outside, negative axes, int32 bounds, an empty axis
        ("Slice", [V, i(-1), i(LOW), i(0), i(-1)], 17),
        ("Slice", [V, i(HIGH), i(-HIGH), i(0), i(-2)], 17),
        ("Slice", [V, i(3), i(-1), i(0), i(-1)], 17),
        ("Slice", [V, i(-100), i(-200), i(0), i(-1)], 17),
        ("Slice", [V, i(1), i(HIGH)], 17),
        ("Slice", [V, i(-100), i(-2)], 17),
        ("Slice", [V, i(4), i(2)], 17),
        ("Slice", [X, i(0, 1), i(HIGH, 3), i(-1, 1), i(2, 1)], 17),
        ("Slice", [X, np.asarray([1], np.int32), np.asarray([2], np.int32), np.asarray([1], np.int32)], 17),
        ("Slice", [np.zeros((0, 3), F), i(-1), i(LOW), i(0), i(-1)], 17),
        ("Slice", [X, i(0), i(2), None, i(2)], 17),
        ("Reshape", [X, i(0, -1)], 17),
        ("Reshape", [X, i(4, 0, 2)], 17),
        ("Reshape", [np.zeros((0, 3), F), i(0, 5)], 17),
        ("Reshape<allowzero=1>", [np.zeros((0, 3), F), i(3, 0)], 17),
        ("Reshape", [V[:1], i()], 17),
        ("Flatten", [X], 17),
        ("Flatten<axis=0>", [X], 17),
        ("Flatten<axis=-1>", [X], 17),
        ("Flatten<axis=-3>", [X], 17),
        ("Flatten<axis=3>", [X], 17),
        ("Transpose", [X], 17),
        ("Transpose<perm=[1,2,0]>", [X], 17),
        ("Squeeze", [X.reshape(1, 2, 1, 12)], 17),
        ("Squeeze", [X.reshape(1, 2, 1, 12), i(-2)], 17),
        ("Squeeze<axes=[0]>", [X.reshape(1, 2, 1, 12)], 11),
        ("Unsqueeze", [X, i(-1, 0)], 17),
        ("Unsqueeze<axes=[1]>", [X], 11),
        ("Unsqueeze", [np.asarray(3.0, F), i(0)], 17),
        ("Gather", [X, i(-1, 0)], 17),
        ("Gather<axis=-1>", [X, np.asarray([[0, -1]], np.int32)], 17),
        ("Gather", [V, np.asarray(-2, I64)], 17),
        ("Concat<axis=-1>", [X, X, X], 17),
        ("Concat<axis=0>", [V], 17),
        ("Tile", [X, i(2, 1, 3)], 17),
        ("Tile", [X, i(0, 1, 1)], 17),
        ("Expand", [X, i(5, 1, 1, 4)], 17),
        ("Expand", [np.asarray(2.0, F), i(2, 3)], 17),
        ("Expand", [V[:1], i(0)], 17),
        ("ConstantOfShape", [i(2, 3)], 17),
        ("ConstantOfShape<value = int64[1] {7}>", [i()], 17),
        ("Range", [np.asarray(7, I64), np.asarray(-2, I64), np.asarray(-3, I64)], 17),
        ("Range", [np.asarray(1, F), np.asarray(2, F), np.asarray(0.3, F)], 17),
        ("Range", [np.asarray(5, I64), np.asarray(2, I64), np.asarray(1, I64)], 17),
        ("Div", [i(-7, 7, -7, 7, LOW, LOW, 0), i(2, -2, -2, 2, 2, 1, 5)], 17),
        ("Div", [np.asarray([7, 255], np.uint8), np.asarray([2, 16], np.uint8)], 17),
        ("Div", [V, np.asarray(0, F)], 17),
        ("Mod", [i(-7, 7, -7, 7), i(2, -2, -2, 3)], 17),
        ("Mod<fmod=1>", [i(-7, 7, -7, 7), i(2, -2, -2, 3)], 17),
        ("Mod<fmod=1>", [np.asarray([-7.5, 7.5], F), np.asarray([2, -2], F)], 17),
        ("Pow", [V, np.asarray(2, I64)], 17),
        ("Pow", [i(2, 3), i(3, 0)], 17),
        ("Where", [X > 0, X, np.asarray(1, F)], 17),
        ("Min", [X, np.asarray([0, 1, 2, np.nan], F), np.asarray(1, F)], 17),
        ("Max", [X, np.asarray([0, 1, 2, 3], F)], 17),
        ("Max", [X], 17),
        ("Relu", [X], 17),
        ("Relu", [np.asarray([-3, 3], np.int8)], 17),
        ("ReduceSum", [X, i(-1, 0)], 17),
        ("ReduceSum<keepdims=0>", [X], 17),
        ("ReduceSum<noop_with_empty_axes=1>", [X], 17),
        ("ReduceProd<axes=[1], keepdims=0>", [X], 17),
        ("ReduceProd<keepdims=0>", [i(2, 3, 4)], 17),
        ("ReduceMax<axes=[-2]>", [X], 17),
        ("ReduceMin", [X, i(1)], 18),
        ("Equal", [i(1, 2), i(1, 3)], 17),
        ("And", [X > 0, X > 3], 17),
        ("Or", [X > 0, X > 3], 17),
        ("Not", [X > 0], 17),
    ],
)
def test_the_result_is_that_of_the_runtime(call, arrays, opset):
    _equals_the_runtime(call, arrays, opset)


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
@pytest.mark.parametrize("dtype", [F, I64])
def test_binary_operators_broadcast_as_the_runtime_does(op_type, dtype):
    _equals_the_runtime(op_type, [X.astype(dtype), np.asarray([[1], [2], [3]], dtype)])


@pytest.mark.parametrize("op_type", ["Neg", "Abs", "Sqrt", "Exp", "Log", "Floor", "Ceil", "Reciprocal", "Sign"])
def test_unary_operators_agree_also_where_they_are_not_finite(op_type):
    _equals_the_runtime(op_type, [np.asarray([-2.5, -1, 0, 0.5, 2, np.inf, np.nan], F)])


@pytest.mark.parametrize(
    ("call", "arrays", "opset", "outputs"),
    [
        ("Split<axis=-1>", [X, i(1, 3)], 17, 2),
        ("Split", [X], 17, 2),
        ("Split<num_outputs=3>", [V], 18, 3),
        ("Split<axis=1, split=[1,2]>", [X], 11, 2),
    ],
)
def test_split_by_sizes_by_attribute_and_in_equal_parts(call, arrays, opset, outputs):
    _equals_the_runtime(call, arrays, opset, outputs)


@pytest.mark.parametrize(
    ("values", "to"),
    [
        (np.asarray([-1.9, 0.5, 3.0], F), ir.DataType.INT32),
        (np.asarray([-1.9, 0.0, np.nan], F), ir.DataType.BOOL),
        (np.asarray([300, -1], I64), ir.DataType.UINT8),
        (np.asarray([2**40 + 5], I64), ir.DataType.INT32),
        (np.asarray([70000.0, 1e-9, 1.0005], F), ir.DataType.FLOAT16),
        (np.asarray([True, False]), ir.DataType.FLOAT),
        (np.asarray([2**24 + 1], I64), ir.DataType.FLOAT),
    ],
)
def test_cast_rounds_and_wraps_as_the_runtime_does(values, to):
    _equals_the_runtime(f"Cast<to={int(to)}>", [values])


@pytest.mark.parametrize(
    ("call", "arrays", "outputs"),
    [
        ("Cast<to=7>", [np.asarray([9.3e18], F)], 1),  # 2⁶³ is no int64, and C says nothing of it
        ("Cast<to=6>", [np.asarray([np.nan], F)], 1),
        ("Cast<to=2>", [np.asarray([-1.0], F)], 1),
        ("Cast<to=8>", [V], 1),  # string
        ("Cast<to=17>", [V], 1),  # float8
        ("Div", [i(1), i(0)], 1),
        ("Mod", [i(1), i(0)], 1),
        ("Pow", [i(2), i(-1)], 1),
        ("Pow", [i(2), np.asarray([0.5], F)], 1),
        ("Split", [V, i(2, 2)], 2),
        ("Split", [V, i(2, 3)], 3),
        ("Gather", [V, i(5)], 1),
        ("Reshape", [V, i(2, 2)], 1),
        ("Reshape", [V, i(5, 0)], 1),
        ("Slice", [V, i(0), i(5), i(0), i(0)], 1),
        ("Range", [np.asarray(0, I64), np.asarray(5, I64), np.asarray(0, I64)], 1),
        ("ConstantOfShape", [i(-1)], 1),
        ("Add", [V, None], 1),
        ("Conv", [X, X], 1),
    ],
)
def test_what_is_not_defined_or_not_known_is_left_to_the_runtime(call, arrays, outputs):
    _, node = _node(call, arrays, 17, outputs)
    with pytest.raises(CannotEvaluate):
        evaluate(node, arrays, 10**6)


@pytest.mark.parametrize(
    ("call", "arrays"),
    [
        ("ConstantOfShape", [i(2**20, 2**20)]),
        ("Expand", [V[:1], i(2**40)]),
        ("Tile", [V, i(2**40)]),
        ("Range", [np.asarray(0, F), np.asarray(1e30, F), np.asarray(1, F)]),
        ("Range", [np.asarray(0, I64), np.asarray(HIGH, I64), np.asarray(1, I64)]),
        ("Gather", [np.zeros((1, 2**12), F), np.zeros(2**12, I64)]),
        ("Add", [np.zeros((2**15, 1), F), np.zeros((1, 2**15), F)]),
        ("Where", [np.zeros((2**15, 1), B), np.zeros((1, 2**15), F), V[:1]]),
        ("Min", [np.zeros((2**15, 1), F), np.zeros((1, 2**15), F)]),
        ("Div", [np.zeros((2**15, 1), F), np.zeros((1, 2**15), F)]),
        ("Equal", [np.zeros((2**15, 1), I64), np.zeros((1, 2**15), I64)]),
        ("Concat<axis=0>", [np.zeros(2**20, F), np.zeros(1, F)]),
    ],
)
def test_a_result_beyond_the_limit_is_refused_before_it_is_computed(call, arrays):
    _, node = _node(call, arrays, 17, 1)
    with pytest.raises(TooLarge, match="elements"):
        evaluate(node, arrays, 2**20)


def test_bfloat16_is_computed_and_stays_bfloat16():
    node = ir.node("Mul", [ir.val("a"), ir.val("b")])
    a = np.asarray([1.5, 3], ml_dtypes.bfloat16)
    (result,) = evaluate(node, [a, a], 10)
    assert result.dtype == ml_dtypes.bfloat16
    assert result.tolist() == [2.25, 9]


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.float8_e4m3fn, object])
def test_sub_byte_numbers_and_strings_are_left_alone(dtype):
    node = ir.node("Reshape", [ir.val("a"), ir.val("b")])
    with pytest.raises(CannotEvaluate):
        evaluate(node, [np.zeros(4, dtype), i(2, 2)], 10)


def test_operators_of_other_domains_are_not_taken_for_standard_ones():
    with pytest.raises(CannotEvaluate):
        evaluate(ir.node("Neg", [ir.val("a")], domain="custom"), [V], 10)


def test_labels_can_be_moved_but_not_computed_with():
    labels = np.asarray(["n", 3, 4], object)
    (picked,) = move(ir.node("Gather", [ir.val("a"), ir.val("b")]), [labels, i(0)], 10)
    assert picked.tolist() == ["n"]
    with pytest.raises(CannotEvaluate):
        move(ir.node("Neg", [ir.val("a")]), [labels], 10)


def test_every_operator_of_the_table_is_tested_here():
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in EVALUATIONS if f'"{name}' not in source and name != "Identity"] == []
