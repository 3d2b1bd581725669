"""What --fix-shape does when nothing is gained: the original is handed back, and it is said that nothing is fixed."""

from __future__ import annotations

import onnx_ir as ir
from graphs import graph

import onnxcomp


def model() -> ir.Model:
    return graph("g (float[N,4] x, float[4,4] w) => (float[N,4] y) { y = MatMul(x, w) }")


def test_optimize_that_hands_the_original_back_says_that_its_shapes_are_not_fixed():
    result = onnxcomp.optimize(model(), shape={"N": (2,)}, fix_shape=True)
    assert not isinstance(result.model.graph.inputs[0].shape[0], int)
    assert any("--fix-shape" in note.sentence for note in result.report.notes if note.level == "warning")


def test_simplify_fixes_shapes_where_nothing_else_is_to_be_done():
    result = onnxcomp.simplify(model(), shape={"N": (2,)}, fix_shape=True)
    assert result.model.graph.inputs[0].shape[0] == 2
    assert not any("--fix-shape" in note.sentence for note in result.report.notes)


def test_optimize_fixes_the_batch_of_what_it_keeps():
    foldable = graph(
        """g (float[N,256] x, float[256,256] w, float[256] w_b) => (float[N,256] y) {
            a = MatMul(x, w) b = Add(a, w_b) c = Identity(b) y = Relu(c)
        }"""
    )
    result = onnxcomp.optimize(foldable, shape={"N": (4,)}, fix_shape=True, goal="size")
    kept = result.report.verdict == "PASSED"
    fixed = result.model.graph.inputs[0].shape[0] == 4
    assert fixed is kept
    assert not any("twice the batch" in step.why for step in result.report.steps)
