"""`inspect`: figures that agree with the passes themselves, findings, and nothing run or read that need not be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import context, feeds, graph
from onnx import TensorProto, helper

import onnxcomp
from onnxcomp.driver import inspection, prospects
from onnxcomp.errors import UsageError
from onnxcomp.model.normalize import normalize
from onnxcomp.passes.dynamic.dynamic import Dynamic
from onnxcomp.passes.factorize.factorize import Factorize
from onnxcomp.passes.prune.config import PruneConfig
from onnxcomp.passes.prune.prune import Prune
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.quantize.quantize import Quantize
from onnxcomp.passes.simplify.simplify import Simplify
from onnxcomp.passes.weight_only.weight_only import WeightOnly
from onnxcomp.report.inspection import Inspection, Prospect, Trait
from onnxcomp.report.reasons import Reason

CNN = """g (float[N,3,16,16] image, float[32,3,3,3] w1, float[32] ws, float[32] wb, float[64,32,3,3] w2,
           float[64,96] w3) => (float[N,96] logits) {
    a = Conv <pads = [1,1,1,1]> (image, w1)
    b = Add (a, a)
    c = Relu (b)
    d = Conv <pads = [1,1,1,1]> (c, w2)
    e = GlobalAveragePool (d)
    f = Flatten (e)
    logits = Gemm (f, w3)
}"""


def of(found: Inspection, name: str) -> Prospect:
    return next(p for p in found.prospects if p.name == name)


def codes(found: Inspection) -> set[Trait]:
    return {finding.code for finding in found.findings}


@pytest.fixture(scope="module")
def cnn() -> ir.Model:
    return graph(CNN, ws=np.zeros(32, np.float32))


def test_macs_and_bytes_of_operators_add_up_to_those_of_the_model(cnn: ir.Model) -> None:
    found = onnxcomp.inspect(cnn, shape={"image": (2, 3, 16, 16)})
    convolutions = 2 * 16 * 16 * 9 * (3 * 32 + 32 * 64)
    assert found.model.macs == convolutions + 2 * 64 * 96
    assert {r.op_type: r.macs for r in found.operators}["Conv"] == convolutions
    assert sum(r.macs for r in found.operators) == sum(n.macs or 0 for n in found.nodes) == found.model.macs
    used = 4 * (32 * 3 * 9 + 64 * 32 * 9 + 64 * 96)
    assert sum(r.weight_bytes for r in found.operators) == sum(n.weight_bytes for n in found.nodes) == used
    assert next(n.shape for n in found.nodes if n.op_type == "Gemm") == (2, 96)


def test_a_weight_that_two_nodes_read_counts_once() -> None:
    model = graph("g (float[2,64] x, float[64,64] w) => (float[2,64] y) { a = MatMul(x, w) y = MatMul(a, w) }")
    assert [n.weight_bytes for n in onnxcomp.inspect(model).nodes] == [4 * 64 * 64, 0]


def test_nodes_that_could_change_are_those_that_the_passes_plan_to_change(cnn: ir.Model) -> None:
    found = onnxcomp.inspect(cnn)
    ctx = context(feeds(cnn))
    canonical = normalize(cnn).model
    step = Simplify()
    simplified = step.apply(canonical, step.plan(canonical, ctx), ctx)
    static = Quantize(QuantizeConfig(smooth="none", correct="none")).plan(simplified, ctx)
    absorbed = {n.name for n in simplified.graph if n.op_type == "Relu"}
    assert static.changes() <= set(of(found, "static INT8").nodes) <= static.changes() | absorbed
    assert set(of(found, "dynamic INT8").nodes) == Dynamic().plan(simplified, ctx).changes() != set()
    assert set(of(found, "4-bit weights").nodes) == WeightOnly().plan(simplified, ctx).changes() != set()
    cut = Prune(PruneConfig(ratio=0.9)).plan(canonical, ctx)
    producers_and_consumers = {n for cell in cut.cells for n in (*cell.producers, *cell.consumers)}
    assert set(of(found, "prune").nodes) == producers_and_consumers >= cut.changes() != set()
    layers = {x.name for x in Factorize().plan(simplified, ctx).layers}
    assert set(of(found, "factorize").nodes) == layers != set()


def test_shares_are_those_of_the_nodes(cnn: ir.Model) -> None:
    prospect = of(onnxcomp.inspect(cnn), "dynamic INT8")
    gemm, convolutions = 64 * 96, 16 * 16 * 9 * (3 * 32 + 32 * 64)
    assert prospect.macs_share == pytest.approx(gemm / (gemm + convolutions))
    assert prospect.bytes_share == pytest.approx(gemm / (gemm + 9 * (3 * 32 + 32 * 64)))


def test_the_others_have_a_reason_and_none_is_in_both_lists(cnn: ir.Model) -> None:
    found = onnxcomp.inspect(cnn)
    dynamic = of(found, "dynamic INT8")
    assert {s.op_type: s.code for s in dynamic.skips} == {"Conv": Reason.KEPT_FLOAT}
    for prospect in found.prospects:
        assert not {s.node for s in prospect.skips} & set(prospect.nodes)


def test_only_and_exclude_hold(cnn: ir.Model) -> None:
    static = of(onnxcomp.inspect(cnn, exclude=("Gemm",)), "static INT8")
    assert any(s.op_type == "Gemm" and s.code is Reason.EXCLUDED for s in static.skips)
    with pytest.raises(UsageError, match="'Cnov' matches no node"):
        onnxcomp.inspect(cnn, only=("Cnov",))


def test_a_target_without_integer_kernels_says_so_of_the_whole_model(cnn: ir.Model) -> None:
    static = of(onnxcomp.inspect(cnn, target="cuda"), "static INT8")
    assert not static.nodes
    assert [s.node for s in static.skips] == [""]


def test_nothing_is_run_without_feeds(cnn: ir.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxcomp.runtime import library

    def never() -> None:
        raise AssertionError("ONNX Runtime was loaded")

    monkeypatch.setattr(library, "onnxruntime", never)
    monkeypatch.setattr("onnxcomp.runtime.session.onnxruntime", never)
    monkeypatch.setattr(inspection, "try_out", never)
    found = onnxcomp.inspect(cnn)
    assert not found.executed
    assert "without feeds" in " ".join(of(found, "float16").detail)


def test_with_feeds_shapes_and_ranges_are_theirs(cnn: ir.Model) -> None:
    huge = [{"image": np.full((3, 3, 16, 16), 1e6, np.float32)}]
    found = onnxcomp.inspect(cnn, huge)
    assert found.executed
    assert found.shapes == {"image": (3, 3, 16, 16)}
    assert Reason.OUT_OF_RANGE in {s.code for s in of(found, "float16").skips}
    assert Reason.OUT_OF_RANGE not in {s.code for s in of(onnxcomp.inspect(cnn), "float16").skips}


def test_pruning_is_judged_without_the_shapes_that_only_a_run_shows() -> None:
    model = graph(
        """g (float[N,8] x, float[64,8] w1, float[8,64] w2, int64[1] k) => (float[N,8] y, int64[1,m] z) {
            a = Gemm <transB = 1> (x, w1)
            b = Relu (a)
            y = Gemm <transB = 1> (b, w2)
            z = NonZero (k)
        }"""
    )
    prune = of(onnxcomp.inspect(model), "prune")
    assert len(prune.nodes) == 2
    assert any("not known without a run" in line for line in prune.detail)


def test_findings_of_a_model_with_everything() -> None:
    model = graph(
        """g (float[N,64] x, bool c, float[64,64] w1, float[64,64] w2) => (float[N,64] y) {
            a = MatMul (x, w1)
            b = com.microsoft.FastGelu (a)
            d = MatMul (b, w2)
            s = Constant <value = float {0.1}> ()
            z = Constant <value = uint8 {0}> ()
            q = QuantizeLinear (d, s, z)
            e = DequantizeLinear (q, s, z)
            y = If (c) <
                then_branch = t () => (float[N,64] u) { u = Relu (e) },
                else_branch = f () => (float[N,64] v) { v = Neg (e) }
            >
        }""",
        w2=np.ones((64, 64), np.float32),
        w1=np.ones((64, 64), np.float32),
    )
    found = onnxcomp.inspect(model)
    wanted = {Trait.OPSET, Trait.DOMAINS, Trait.BODIES, Trait.DYNAMIC, Trait.WEIGHT_TYPES, Trait.FLOAT32}
    assert wanted | {Trait.QUANTIZED, Trait.DUPLICATES} <= codes(found)
    sentences = " ".join(f.sentence for f in found.findings)
    assert "1 FastGelu" in sentences
    assert "copies of other weights: 1, 16.4 kB" in sentences
    assert of(found, "static INT8").skips[0].code is Reason.ALREADY_QUANTIZED


def test_an_opset_that_the_installed_runtime_refuses_is_a_warning_not_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "runtime_wheels", lambda: {"onnxruntime": "1.18.0"})
    model = graph("g (float[2,8] x) => (float[2,8] y) { y = Relu(x) }", opset=22, ir_version=10)
    finding = next(f for f in onnxcomp.inspect(model).findings if f.code is Trait.OPSET)
    assert finding.level == "warning"
    assert "onnxruntime 1.18.0 loads up to opset 21" in finding.sentence


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A product of 1.6 GB in a sparse data file that takes no room on the disk."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[20000, 20000])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="w.data")
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 20000]) for name in "xy"]
    made = helper.make_graph([node], "g", ports[:1], ports[1:], [weight])
    path = tmp_path / "large.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    with (tmp_path / "w.data").open("wb") as file:
        file.truncate(4 * 20000 * 20000)
    return path


def test_a_model_of_gigabytes_is_not_read_and_what_is_not_examined_is_said(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: ir.ExternalTensor) -> np.ndarray:
        assert self.nbytes < 1 << 20, f"{self.name} was read"
        raise NotImplementedError

    monkeypatch.setattr(ir.ExternalTensor, "tobytes", never)
    monkeypatch.setattr(ir.ExternalTensor, "tofile", never)
    monkeypatch.setattr(ir.ExternalTensor, "_load", never)
    found = onnxcomp.inspect(large)
    assert found.model.sha256 == ""
    assert found.model.parameters == 400_000_000
    assert found.model.macs == 400_000_000
    assert Trait.EXTERNAL_DATA in codes(found)
    for name in ("simplify", "float16"):
        assert "reads all weights, here 1.60 GB" in of(found, name).not_examined
    for name in ("dynamic INT8", "4-bit weights", "factorize"):
        assert of(found, name).nodes == ("product",)
        assert prospects.UNREAD in of(found, name).detail


def test_the_record_survives_json(cnn: ir.Model) -> None:
    found = onnxcomp.inspect(cnn)
    text = found.model_dump_json(by_alias=True)
    assert '"schema":"onnxcomp-inspection/1"' in text
    assert Inspection.model_validate_json(text) == found


def test_operators_that_onnx_does_not_define_are_found_before_anything_is_run():
    model = graph("g (float[N,4] x) => (float[N,4] y) { a = Frobnicate(x) y = Relu(a) }")
    told = [f for f in onnxcomp.inspect(model).findings if "Frobnicate" in f.sentence]
    assert [f.level for f in told] == ["warning"]
    assert not [f for f in onnxcomp.inspect(graph(PLAIN)).findings if "does not define" in f.sentence]


def test_sequences_and_optionals_are_not_shown_as_tensors():
    model = graph("g (seq(float[N,3]) x, optional(float[3]) o) => (seq(float[N,3]) y) { y = Identity(x) }", opset=18)
    assert [t.dtype for t in onnxcomp.inspect(model).inputs] == ["sequence of float", "optional float"]


PLAIN = "g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"
