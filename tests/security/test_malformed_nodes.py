"""Nodes that no pass expects: `inspect` and every pass answer or refuse, in time. Found by benchmarks/fuzz.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import graph

from onnxcomp.errors import ModelError
from onnxcomp.model import shapes
from onnxcomp.model.load import load
from onnxcomp.ops.targets import TARGETS
from onnxcomp.passes.base import Context
from onnxcomp.passes.precision.precision import Precision
from onnxcomp.runtime.session import SessionConfig, open_session

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures memory")

ROOT = Path(__file__).parents[2]
HUGE = 2**62
HEADER = '<ir_version: 9, opset_import: ["": 17, "com.microsoft": 1]> '

WRONG_RANKS = {
    "Conv": "g (float[1,2,4,4] x) => (float y) <float[2,2] w = {1,2,3,4}> { y = Conv (x, w) }",
    "Conv, bias": """g (float[1,1,4,4] x) => (float y) <float[1,1,1,1] w = {1}, float[1,1] b = {1}> {
        y = Conv (x, w, b) }""",
    "Gemm": "g (float[1,2] x) => (float y) <float[2] w = {1,2}> { y = Gemm (x, w) }",
    "Gemm, bias": "g (float[1,2] x) => (float y) <float[2,1] w = {1,2}, float[1,1,1] b = {1}> { y = Gemm (x, w, b) }",
    "LSTM": """g (float[2,1,1] x) => (float y) <float[4,1] w = {1,2,3,4}, float[1,4,1] r = {1,2,3,4}> {
        y = LSTM <hidden_size = 1> (x, w, r) }""",
    "BatchNormalization": """g (float[1,1,2] x) => (float y) <float[1] s = {1}, float t = {1}> {
        y = BatchNormalization (x, s, s, s, t) }""",
    "Reshape": "g (float[2] x) => (float y) <int64 n = {2}> { y = Reshape (x, n) }",
    "Reshape by a Constant": "g (float[2] x) => (float y) { n = Constant <value = int64 {2}> () y = Reshape (x, n) }",
    "Slice": "g (float[2] x) => (float y) <int64 n = {0}, int64[1] m = {1}> { y = Slice (x, n, m) }",
    "Pad": "g (float[2] x) => (float y) <int64[1,2] n = {0, 1}> { y = Pad (x, n) }",
    "Squeeze": "g (float[1,2] x) => (float y) <int64[1,1] n = {0}> { y = Squeeze (x, n) }",
    "in a body": """g (float[2] x, bool c) => (float y) {
        y = If (c) <then_branch = t () => (float a) <int64 n = {2}> { a = Tile (x, n) },
                    else_branch = e () => (float b) { b = Neg (x) }> }""",
}
"""Constants of ranks that ONNX Runtime refuses, when it loads the model or when it runs the node."""

ODD = {
    "Conv of 2⁶² groups": f"g (float[1,2,4,4] x, float[2,2,1,1] w) => (float y) {{ y = Conv <group = {HUGE}> (x, w) }}",
    "Conv of no groups": "g (float[1,2,4,4] x, float[2,2,1,1] w) => (float y) { y = Conv <group = 0> (x, w) }",
    "Conv of −1 groups": "g (float[1,2,4,4] x, float[2,2,1,1] w) => (float y) { y = Conv <group = -1> (x, w) }",
    "Conv of one stride": "g (float[1,2,4,4] x, float[2,2,3,3] w) => (float y) { y = Conv <strides = [1]> (x, w) }",
    "Conv of no strides": "g (float[1,2,4,4] x, float[2,2,3,3] w) => (float y) { y = Conv <strides = [0, 0]> (x, w) }",
    "Conv of three pads": "g (float[1,2,4,4] x, float[2,2,3,3] w) => (float y) { y = Conv <pads = [1,1,1]> (x, w) }",
    "Conv of another kernel": """g (float[1,2,4,4] x, float[2,2,3,3] w) => (float y) {
        y = Conv <kernel_shape = [5, 5]> (x, w) }""",
    "Conv with a long bias": "g (float[1,2,4,4] x, float[2,2,3,3] w, float[7] w1) => (float y) { y = Conv (x, w, w1) }",
    "ConvTranspose of 2⁶² groups": f"""g (float[1,2,4,4] x, float[2,2,1,1] w) => (float y) {{
        y = ConvTranspose <group = {HUGE}> (x, w) }}""",
    "GroupNorm of 2⁶² groups": f"""g (float[1,4,4,4] x, float[4] w, float[4] w1) => (float y) {{
        y = com.microsoft.GroupNorm <groups = {HUGE}, channels_last = 1, activation = 0> (x, w, w1) }}""",
    "attention of 2⁶² heads": f"""g (float[1,2,12] x, float[12,36] w, float[36] w1) => (float y) {{
        y = com.microsoft.Attention <num_heads = {HUGE}> (x, w, w1) }}""",
    "blocks of 2³¹": f"""g (float[1,2,4,4] x, float[2,2,1,1] w) => (float y) {{
        a = Conv (x, w) y = SpaceToDepth <blocksize = {2**31}> (a) }}""",
    "an axis of 2⁴⁰": f"""g (float[1,2,4] x, float[1,2,{2**40}] z, float[2,2,1] w) => (float y) {{
        a = Conv (x, w) y = Concat <axis = 2> (a, z) }}""",
    "Gemm with a bias of another length": """g (float[1,8] x, float[8,8] w, float[3] w1) => (float y) {
        y = Gemm (x, w, w1) }""",
    "an LSTM of no directions": """g (float[2,1,3] x, float[0,8,3] w, float[1,8,2] w1) => (float y) {
        y = LSTM <hidden_size = 2> (x, w, w1) }""",
    "an empty weight": "g (float[1,8] x, float[8,0] w) => (float y) { y = MatMul (x, w) }",
}


def _of_strings() -> onnx.ModelProto:
    """A vector of strings, of which no element has a width."""
    proto = onnx.parser.parse_model(
        HEADER + "g (float[2] x) => (float[2] y, string[2] s) { y = Neg (x) s = Identity (k) }"
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(["a", "b"], object), "k"))
    return proto


def _shape_of_strings() -> onnx.ModelProto:
    """A Shape whose sizes the file declares to be strings, and which is known ahead of time."""
    text = "g (float[2,3] x) => (float y) { a = Relu (x) s = Shape (a) y = Reshape (x, s) }"
    proto = onnx.parser.parse_model(HEADER + text)
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("s", onnx.TensorProto.STRING, [2]))
    return proto


def _bool_as_float() -> onnx.ModelProto:
    """A constant of bools among the inputs, as floats."""
    proto = onnx.parser.parse_model(HEADER + "g (float[2] x, float[2] k) => (float y) { y = Add (x, k) }")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([True, False]), "k"))
    return proto


def _undefined() -> onnx.ModelProto:
    """An output whose type the file leaves open; ONNX Runtime finds it out."""
    proto = onnx.parser.parse_model(HEADER + "g (float[2] x) => (float[2] y) { y = Neg (x) }")
    proto.graph.output[0].type.tensor_type.elem_type = 0
    return proto


LIARS = {
    "a type left open": _undefined(),
    "strings": _of_strings(),
    "sizes as strings": _shape_of_strings(),
    "bools as floats": _bool_as_float(),
}


@pytest.mark.parametrize("name", WRONG_RANKS)
def test_a_constant_of_another_rank_is_refused_at_the_door(name: str) -> None:
    proto = onnx.parser.parse_model(HEADER + WRONG_RANKS[name])
    with pytest.raises(ModelError, match=r"has \d axes; the operator takes"):
        load(proto)


@pytest.mark.parametrize("axis", [-(2**63), 2**40])
def test_an_axis_that_no_tensor_has_is_refused_at_the_door(axis: int) -> None:
    proto = onnx.parser.parse_model(HEADER + f"g (float[2] x) => (float[2] y) {{ y = Softmax <axis = {axis}> (x) }}")
    with pytest.raises(ModelError, match="names axis"):
        load(proto)


def answers(*paths: Path) -> str:
    """What `inspect` and the passes answer, in a process of its own; fails if one of them breaks or takes 1 GiB."""
    code = """
import resource, sys
from pathlib import Path
from fuzz_passes import answers
begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[1:]):
    for answer in answers(path, path.with_name("out.onnx")):
        print(path.stem, answer.step, answer.outcome, answer.error or "", flush=True)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begin) >> 20, "GiB")
"""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "benchmarks")))
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert result.returncode == 0, result.stderr
    assert "FAILED" not in result.stdout
    assert result.stdout.endswith("\n0 GiB\n")
    return result.stdout


def test_every_pass_answers_to_nodes_that_onnx_does_not_define(tmp_path: Path) -> None:
    protos = {name: ir.to_proto(graph(text)) for name, text in ODD.items()} | LIARS
    for name, proto in protos.items():
        onnx.save(proto, tmp_path / f"{name}.onnx")
    said = answers(*(tmp_path / f"{name}.onnx" for name in protos))
    for name in protos:
        assert f"{name} inspect done" in said
        assert f"{name} bf16 " in said


def test_random_numbers_keep_their_type_in_16_bits() -> None:
    model = graph("""g (float[N,64] x, float[64,64] w) => (float[N,64] y) {
        a = MatMul (x, w) b = RandomUniformLike (a) y = MatMul (b, w) }""")
    for node in model.graph:
        node.name = f"{node.op_type}_{node.outputs[0].name}"
    step, context = Precision(), Context(None, TARGETS["cpu-vnni"], SessionConfig(threads=1))
    shapes.refresh(model)
    result = step.apply(model, step.plan(model, context), context)
    assert any(value.dtype == ir.DataType.FLOAT16 for value in result.graph.initializers.values())
    with open_session(result, SessionConfig(threads=1)) as session:
        session.run({"x": np.ones((2, 64), np.float32)})


def test_a_small_file_is_read_without_room_for_a_large_one(tmp_path: Path) -> None:
    """Python reserves what `read` is asked for: 2 GiB, which a container with a limit does not have."""
    path = tmp_path / "m.onnx"
    ir.save(graph("g (float[1,2] x, float[2,2] w) => (float[1,2] y) { y = MatMul (x, w) }"), path)
    code = f"""
import resource
from onnxcomp.model.load import load
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 28),) * 2)
load({str(path)!r})
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert result.returncode == 0, result.stderr


def test_every_pass_answers_to_mutants(tmp_path: Path) -> None:
    """A few of what benchmarks/fuzz.py tries by the thousand; other ones than its results tell of."""
    code = """
import random, sys
from pathlib import Path
import fuzz
corpus = [c for c in fuzz.seeds([]) if len(c) < 2000]
for i in range(int(sys.argv[2])):
    Path(sys.argv[1], f"{i}.onnx").write_bytes(fuzz.mutated_graph(corpus, random.Random(f"suite:{i}")))
"""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "benchmarks")))
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", code, str(tmp_path), "40"], check=True, env=environment)
    said = answers(*(tmp_path / f"{i}.onnx" for i in range(40)))
    assert said.count("inspect done") > 15
