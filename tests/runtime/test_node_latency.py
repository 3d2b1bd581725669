"""A node's latency is that of one more node of its kind, asked of the machine once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from graphs import graph

from onnxcomp.errors import ModelError
from onnxcomp.model.save import serialize
from onnxcomp.runtime import node_latency
from onnxcomp.runtime.audit import operator_counts, optimized_graph
from onnxcomp.runtime.cache import Cache
from onnxcomp.runtime.latency_surface import Surface, Width, knots, surface_of
from onnxcomp.runtime.node_latency import _BLOCKED, _NO_MERGING, NodeTable, measure_node, node_model
from onnxcomp.runtime.node_spec import NodeSpec, Port, spec_of
from onnxcomp.runtime.session import SessionConfig, open_session

ONE = SessionConfig(threads=1)


def conv(inputs: int, outputs: int, *, size: int = 8, group: int = 1) -> NodeSpec:
    weight = Port((outputs, inputs // group, 3, 3), constant=True)
    return NodeSpec("Conv", (Port((1, inputs, size, size)), weight), (("group", group), ("pads", (1, 1, 1, 1))))


SPECS = {
    "conv": conv(16, 32),
    "depthwise conv": conv(16, 16, group=16),
    "conv without blocks": conv(17, 30),
    "gemm": NodeSpec("Gemm", (Port((2, 8)), Port((4, 8), constant=True), Port((4,), constant=True)), (("transB", 1),)),
    "product of two activations": NodeSpec("MatMul", (Port((1, 4, 6, 8)), Port((1, 4, 8, 6)))),
    "relu": NodeSpec("Relu", (Port((1, 16, 8, 8)),)),
    "reshape": NodeSpec("Reshape", (Port((1, 16, 8)), Port((2,), "INT64", True, (1, -1)))),
    "gather": NodeSpec("Gather", (Port((10, 4), constant=True), Port((1, 7), "INT64")), (("axis", 0),)),
    "lstm": NodeSpec(
        "LSTM",
        (Port((5, 1, 8)), Port((1, 16, 8), constant=True), Port((1, 16, 4), constant=True)),
        (("hidden_size", 4),),
        outputs=3,
    ),
    "left out input": NodeSpec("Clip", (Port((3, 4)), None, Port((), constant=True, content=(6.0,)))),
    "half floats": NodeSpec("MatMul", (Port((4, 8), "FLOAT16"), Port((8, 8), "FLOAT16", True))),
    "contrib operator": NodeSpec("Gelu", (Port((2, 8)),), domain="com.microsoft"),
    "split": NodeSpec("Split", (Port((1, 16, 4, 4)),), (("axis", 1),), outputs=2, opset=13),
}


def fed(spec: NodeSpec) -> dict[str, np.ndarray]:
    return {
        f"x{i}": np.zeros(p.shape, ir.DataType[p.dtype].numpy())
        for i, p in enumerate(spec.inputs)
        if p is not None and not p.constant
    }


@pytest.mark.parametrize("name", SPECS)
def test_the_model_of_a_node_runs_with_as_many_copies_as_asked(name: str) -> None:
    spec = SPECS[name]
    for copies in (1, 3):
        with open_session(node_model(spec, copies), ONE) as session:
            results = session.run(fed(spec))
        assert len(results) == copies
        assert all(np.isfinite(r).all() for r in results)


@pytest.mark.parametrize("name", SPECS)
def test_copies_are_really_computed_and_not_merged(name: str) -> None:
    spec = SPECS[name]
    config = SessionConfig(threads=1, entries=(_NO_MERGING,))
    few, many = (operator_counts(optimized_graph(node_model(spec, n), config)) for n in (1, 4))
    key = max(many - few, key=lambda op: (many - few)[op])
    assert (many - few)[key] == 3


def test_without_that_setting_onnxruntime_merges_copies_that_are_all_alike() -> None:
    spec = SPECS["relu"]
    assert operator_counts(optimized_graph(node_model(spec, 4), ONE))["Relu"] == 1


@pytest.mark.parametrize("op_type", sorted(_BLOCKED))
def test_layout_conversions_are_paid_once_and_not_by_every_copy(op_type: str) -> None:
    image = Port((1, 32, 8, 8))
    operands = {
        "Conv": (image, Port((32, 32, 3, 3), constant=True)),
        "BatchNormalization": (image, *[Port((32,), constant=True)] * 4),
        **dict.fromkeys(("Add", "Concat", "Mul", "Sum"), (image, image)),
    }
    kernel = (("kernel_shape", (2, 2)),)
    attributes = {"AveragePool": kernel, "Concat": (("axis", 1),), "MaxPool": kernel}.get(op_type, ())
    spec = NodeSpec(op_type, operands.get(op_type, (image,)), attributes)
    config = SessionConfig(threads=1, entries=(_NO_MERGING,))
    counts = operator_counts(optimized_graph(node_model(spec, 4), config))
    assert counts["com.microsoft.nchwc:ReorderInput"] <= len(operands.get(op_type, (image,)))
    # What leaves the blocks is a single pixel, behind the pool.
    pixels = [v.shape for v in node_model(spec, 4).graph.outputs]
    assert all(shape is not None and list(shape)[2:] == [1, 1] for shape in pixels)


def test_the_same_spec_gives_the_same_model() -> None:
    assert serialize(node_model(SPECS["conv"], 2)) == serialize(node_model(SPECS["conv"], 2))


def test_weights_of_the_copies_differ() -> None:
    first, second = (
        v.const_value.numpy() for v in node_model(SPECS["conv"], 2).graph.initializers.values() if v.const_value
    )
    assert not np.array_equal(first, second)


def test_a_node_is_described_from_a_graph() -> None:
    model = graph(
        "g (float[N,16,8,8] x, float[32,16,3,3] w, float[32] w_b) => (float[N,32,8,8] y)"
        " { y = Conv <pads = [1, 1, 1, 1], auto_pad = 'NOTSET'> (x, w, w_b) }".replace("'", '"')
    )
    spec = spec_of(next(iter(model.graph)), {"x": (1, 16, 8, 8)}, 17)
    assert spec == NodeSpec(
        "Conv",
        (Port((1, 16, 8, 8)), Port((32, 16, 3, 3), constant=True), Port((32,), constant=True)),
        (("auto_pad", "NOTSET"), ("pads", (1, 1, 1, 1))),
    )
    assert spec is not None
    with open_session(node_model(spec, in_layout=False), ONE) as session:
        assert session.run(fed(spec))[0].shape == (1, 32, 8, 8)


def test_constants_that_decide_what_is_computed_are_part_of_the_description() -> None:
    model = graph("g (float[1,4,8] x, int64[2] w_s) => (float[1,32] y) { y = Reshape(x, w_s) }", w_s=np.array([1, 32]))
    spec = spec_of(next(iter(model.graph)), {"x": (1, 4, 8)}, 17)
    assert spec is not None
    assert spec.inputs[1] == Port((2,), "INT64", True, (1, 32))


def test_what_a_single_node_can_not_show_has_no_description() -> None:
    body = "then_branch = t () => (float[2] z) { z = Identity(x) }, else_branch = e () => (float[2] q) { q = Neg(x) }"
    model = graph(f"g (bool c, float[2] x) => (float[2] y) {{ y = If (c) <{body}> }}")
    assert spec_of(model.graph[0], {"c": (), "x": (2,)}, 17) is None
    relu = graph("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    assert spec_of(relu.graph[0], {}, 17) is None


def test_a_node_is_resized_in_all_its_inputs_and_attributes() -> None:
    depthwise = conv(16, 16, group=16).resized({(0, 1): 8, (1, 0): 8}, {"group": 8})
    assert depthwise == conv(8, 8, group=8)
    with pytest.raises(ValueError, match="no input 1"):
        NodeSpec("Clip", (Port((3,)), None)).resized({(1, 0): 2})


def test_a_table_measures_each_node_once_and_another_table_finds_it_on_disk(tmp_path: Path) -> None:
    asked: list[NodeSpec] = []

    def measure(spec: NodeSpec, config: SessionConfig) -> float:
        asked.append(spec)
        return 0.125 * len(asked)

    table = NodeTable(ONE, Cache(tmp_path), measure)
    assert [table.latency(conv(16, n)) for n in (16, 32, 16)] == [0.125, 0.25, 0.125]
    assert table.measured == 2
    later = NodeTable(ONE, Cache(tmp_path), measure)
    assert later.latency(conv(16, 32)) == 0.25
    assert later.measured == 0
    other_threads = NodeTable(SessionConfig(threads=2), Cache(tmp_path), measure)
    assert other_threads.latency(conv(16, 32)) == 0.375
    assert len(asked) == 3


def test_a_damaged_measurement_is_made_again(tmp_path: Path) -> None:
    def measure(spec: NodeSpec, config: SessionConfig) -> float:
        return 2.0

    NodeTable(ONE, Cache(tmp_path), measure).latency(conv(16, 16))
    (entry,) = (path for path in tmp_path.rglob("*.json"))
    entry.write_text(entry.read_text().replace("2.0", '"fast"'))
    table = NodeTable(ONE, Cache(tmp_path), measure)
    assert table.latency(conv(16, 16)) == 2.0
    assert table.measured == 1


def test_a_node_with_sixteen_times_the_arithmetic_takes_longer() -> None:
    assert measure_node(conv(64, 64, size=32), ONE) > measure_node(conv(16, 16, size=32), ONE) > 0


def test_a_node_with_large_weights_is_timed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of 400 MB each would not fit; beside such a node a call costs nothing."""
    made: list[int] = []
    real = node_latency.node_model

    def counted(spec: NodeSpec, copies: int = 1) -> ir.Model:
        made.append(copies)
        return real(spec, copies)

    spec = conv(16, 32)
    assert node_latency.weight_bytes(spec) == 4 * 32 * 16 * 9
    monkeypatch.setattr(node_latency, "node_model", counted)
    assert measure_node(spec, ONE) > 0
    assert made == [1, 4]
    monkeypatch.setattr(node_latency, "_LARGE", 4 * 32 * 16 * 9)
    made.clear()
    assert measure_node(spec, ONE) > 0
    assert made == [1]


def test_a_node_that_onnxruntime_refuses_is_an_error() -> None:
    with pytest.raises(ModelError):
        measure_node(NodeSpec("NoSuchOperator", (Port((2,)),)), ONE)


def test_knots_are_aligned_and_end_with_the_whole_axis() -> None:
    assert knots(256, 16) == (16, 64, 128, 192, 256)
    assert knots(100, 16) == (16, 32, 48, 80, 100)
    assert knots(16, 16) == (8, 16)
    assert knots(20, 16) == (20,)
    assert knots(3, 16) == (3,)
    assert knots(4, 1) == (1, 2, 3, 4)


def test_a_surface_is_exact_for_products_and_measures_only_the_knots_that_it_needs() -> None:
    asked: list[tuple[int, ...]] = []

    def measured(counts: tuple[int, ...]) -> float:
        asked.append(counts)
        return 1e-4 * counts[0] * counts[1] + 0.01

    surface = Surface([knots(64, 16), knots(128, 16)], measured)
    points = np.array([[64, 128], [64, 112], [40, 100]])
    np.testing.assert_allclose(surface(points), 1e-4 * points[:, 0] * points[:, 1] + 0.01, rtol=1e-12)
    assert sorted(asked) == sorted({(a, b) for a in (32, 48) for b in (96, 128)} | {(64, 96), (64, 128)})
    surface(points)
    assert len(asked) == 6


def test_beyond_the_last_knot_a_surface_is_flat() -> None:
    surface = Surface([(16, 32)], lambda counts: float(counts[0]))
    np.testing.assert_array_equal(surface(np.array([[4], [16], [20], [32], [99]])), [16, 16, 20, 32, 32])
    np.testing.assert_array_equal(Surface([(3,)], lambda counts: 2.0)(np.array([[3], [1]])), [2, 2])


def test_a_surface_asks_for_the_node_with_all_places_of_a_width_resized() -> None:
    asked: list[NodeSpec] = []

    def measure(spec: NodeSpec, config: SessionConfig) -> float:
        asked.append(spec)
        return 1.0

    table = NodeTable(ONE, Cache(None), measure)
    channels = Width(32, places=((0, 1), (1, 0)), attributes=("group",))
    surface_of(table, conv(32, 32, group=32), [channels], unit=16)(np.array([[16]]))
    widths = (Width(32, ((0, 1), (1, 1))), Width(64, ((1, 0),)))
    surface_of(table, conv(32, 64), widths, unit=16)(np.array([[16, 48]]))
    gates = Port((1, 64, 32), constant=True), Port((1, 64, 16), constant=True)
    lstm = NodeSpec("LSTM", (Port((5, 1, 32)), *gates), (("hidden_size", 16),))
    surface_of(table, lstm, [Width(16, ((1, 1), (2, 1), (2, 2)), ("hidden_size",))], unit=8)(np.array([[8]]))
    assert asked[:2] == [conv(16, 16, group=16), conv(16, 48)]
    assert [port.shape for port in asked[2].inputs if port] == [(5, 1, 32), (1, 32, 32), (1, 32, 8)]
    assert asked[2].attributes == (("hidden_size", 8),)
