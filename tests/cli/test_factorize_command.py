"""`onnxcomp factorize` as a user meets it: exit codes, messages, plans, reports."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from commands import Command
from graphs import graph
from haste import nodes_timed_by_size

from onnxcomp.driver import single
from onnxcomp.model.save import save_model
from onnxcomp.passes.factorize import choice, factorize

MLP = """g (float[N,96] image, float[96,128] w1, float[128] wb1, float[128,128] w2, float[128] wb2, float[128,6] w3)
    => (float[N,6] logits) {
    [one] a = Gemm(image, w1, wb1) b = Relu(a)
    [two] c = Gemm(b, w2, wb2) d = Relu(c)
    [head] logits = Gemm(d, w3)
}"""


def low(rows: int, columns: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    product = rng.standard_normal((rows, 8)) @ rng.standard_normal((8, columns)) / np.sqrt(8)
    return ((product + 0.05 * rng.standard_normal((rows, columns))) / np.sqrt(rows)).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two layers of about rank 8."""
    path = tmp_path / "model.onnx"
    save_model(graph(MLP, w1=low(96, 128, 1), w2=low(128, 128, 2)), path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, image=np.random.default_rng(0).standard_normal((200, 96), dtype=np.float32))
    return path


@pytest.fixture(autouse=True)
def by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes take as long as they have products."""
    nodes_timed_by_size(monkeypatch, factorize)


def says(text: str, *patterns: str) -> None:
    """One message without traceback that holds all patterns."""
    assert "Traceback" not in text
    for pattern in patterns:
        assert re.search(pattern, text), text


def result_of(model: Path) -> Path:
    return model.with_name("model.opt.onnx")


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    return {i.name: tuple(i.dims) for i in onnx.load(path).graph.initializer}


def test_0_by_energy_with_data(onnxcomp: Command, model: Path, data: Path) -> None:
    result = onnxcomp("factorize", model, "--energy", "0.99", "--calibration", data)
    assert result.code == 0, result.err
    says(result.out, "2 of 2 layers in two factors", "covariance of their outputs", "refitted", "rank", "too-small")
    assert result.err.splitlines()[-1].startswith("DONE")
    assert shapes(result_of(model))["w2.first"][1] in (8, 16)
    assert "RANDOM" not in result.err


def test_0_without_data_it_is_the_svd_and_says_random(onnxcomp: Command, model: Path) -> None:
    result = onnxcomp("factorize", model, "--params", "0.5")
    assert result.code == 0, result.err
    says(result.out + result.err, "SVD of their weights", "RANDOM")
    assert "refitted" not in result.out
    sizes = [int(np.prod(s)) for s in shapes(result_of(model)).values()]
    assert sum(sizes) <= 0.51 * (96 * 128 + 128 * 128 + 768 + 256)


@pytest.mark.parametrize(
    ("words", "patterns"),
    [
        ([], ["how far", "--energy", "--params", "--macs", "--latency"]),
        (["--energy", "0.9", "--macs", "0.5"], ["energy and macs", "two budgets"]),
        (["--energy", "1.5"], ["--energy", "less than or equal to 1"]),
        (["--energy", "0"], ["--energy", "greater than 0"]),
        (["--macs", "50%"], ["--macs", "50%"]),
        (["--params", "nan"], ["--params"]),
        (["--latency", "soon"], ["--latency", "'soon'", "8ms"]),
        (["--energy", "0.9", "--alpha", "-1"], ["--alpha"]),
        (["--energy", "0.9", "--method", "tucker"], ["--method", "tucker"]),
        (["--energy", "0.9", "--method", "asvd"], ["method asvd", "calibration data", "--calibration"]),
        (["--energy", "0.9", "--round-to", "x"], ["--round-to", "'x'"]),
        (["--energy", "0.9", "--only", "/nowhere/*"], ["matches no node"]),
        (["--plan", "p.json", "--macs", "0.5"], ["--plan", "--macs"]),
    ],
)
def test_2_wrong_usage_is_told_and_writes_nothing(
    onnxcomp: Command, model: Path, words: list[str], patterns: list[str]
) -> None:
    result = onnxcomp("factorize", model, *words)
    assert result.code == 2, result.err
    says(result.err, *patterns)
    assert not result_of(model).exists()


def test_1_a_gate_that_is_not_met_leaves_no_file_and_says_what_to_do(
    onnxcomp: Command, model: Path, data: Path
) -> None:
    command = ("factorize", model, "--energy", "0.5", "--round-to", "1", "--calibration", data, "--min-cosine", "0.99")
    result = onnxcomp(*command)
    assert result.code == 1, result.err
    says(result.err, "cosine of logits is", "nothing was written", "optimize --factorize auto")
    assert not result_of(model).exists()


def test_1_slower_is_refused_where_a_latency_was_asked_for(
    onnxcomp: Command, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versus = single.versus

    def slower(*args: object) -> object:
        return versus(*args).model_copy(update={"speedup": {"after": 0.9}})  # type: ignore[arg-type]

    monkeypatch.setattr(single, "versus", slower)
    monkeypatch.setattr(choice, "_measured", lambda one, other, ctx: (1.0, 1.0 if one is other else 0.4))
    result = onnxcomp("factorize", model, "--latency", "0.6", "--calibration", data)
    assert result.code == 1, result.err
    says(result.err, "not faster", "nothing was written")


def test_0_slower_in_two_parts_stays_whole_and_the_original_is_handed_back(
    onnxcomp: Command, model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "FASTER", 0.0)
    result = onnxcomp("factorize", model, "--macs", "0.5", "--calibration", data)
    assert result.code == 0, result.err
    says(result.out + result.err, "NOTHING GAINED", "slower", "MACs: 100.0% remain")
    assert result_of(model).read_bytes() == model.read_bytes()


def test_0_few_samples_are_a_warning(onnxcomp: Command, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    np.savez(path, image=np.random.default_rng(0).standard_normal((1, 96), dtype=np.float32))
    result = onnxcomp("factorize", model, "--params", "0.5", "--calibration", path)
    assert result.code == 0, result.err
    says(result.out + result.err, "FEW SAMPLES", "fewer than 2 rows")


def test_0_a_plan_is_written_edited_and_replayed_to_the_same_bytes(
    onnxcomp: Command, model: Path, data: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    result = onnxcomp("factorize", model, "--energy", "0.99", "--dry-run", "-o", plan, "--calibration", data)
    assert result.code == 0, result.err
    content = json.loads(plan.read_text())
    assert [layer["name"] for layer in content["layers"]] == ["one", "two"]
    assert len(content["layers"][0]["energies"]) == 96
    content["layers"][1]["rank"] = None
    plan.write_text(json.dumps(content))
    outputs = []
    for name in ("a.onnx", "b.onnx"):
        path = tmp_path / name
        command = ("factorize", model, "--plan", plan, "--calibration", data, "-o", path)
        assert onnxcomp(*command).code == 0
        outputs.append(path.read_bytes())
    assert outputs[0] == outputs[1]
    assert "w1.first" in shapes(tmp_path / "a.onnx")
    assert "w2" in shapes(tmp_path / "a.onnx")


def test_2_a_plan_of_another_pass_is_refused(onnxcomp: Command, model: Path, data: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert onnxcomp("prune", model, "--ratio", "0.5", "--dry-run", "-o", plan).code == 0
    result = onnxcomp("factorize", model, "--plan", plan, "--calibration", data)
    assert result.code == 2
    says(result.err, "plan")


def test_a_quantised_model_is_left_alone_with_the_reason(onnxcomp: Command, model: Path, data: Path) -> None:
    quantised = model.with_name("q.onnx")
    assert onnxcomp("quantize", model, "--calibration", data, "-o", quantised).code == 0
    result = onnxcomp("factorize", quantised, "--energy", "0.9", "--calibration", data)
    assert result.code == 0, result.err
    says(result.out, "already-quantized")
    says(result.err, "NOTHING GAINED")


def test_the_report_names_ranks_and_reasons_in_json_and_markdown(
    onnxcomp: Command, model: Path, data: Path, tmp_path: Path
) -> None:
    reports = tmp_path / "r.json", tmp_path / "r.md"
    words = [w for path in reports for w in ("--report", path)]
    assert onnxcomp("factorize", model, "--energy", "0.99", "--calibration", data, *words).code == 0
    step = json.loads(reports[0].read_text())["steps"][0]
    assert {layer["name"]: layer["rank"] is not None for layer in step["layers"]} == {"one": True, "two": True}
    assert [s["code"] for s in step["skips"]] == ["too-small"]
    assert "rank" in reports[1].read_text()


def test_external_data_goes_in_and_comes_out(onnxcomp: Command, model: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "external"
    folder.mkdir()
    proto = onnx.load(model)
    onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    command = ("factorize", folder / "m.onnx", "--energy", "0.99", "--calibration", data)
    assert onnxcomp(*command).code == 0
    assert "w2.first" in shapes(folder / "m.opt.onnx")


def test_an_old_opset_and_constants_in_nodes_are_no_hindrance(onnxcomp: Command, tmp_path: Path, data: Path) -> None:
    model = graph(MLP, opset=11, w1=low(96, 128, 1), w2=low(128, 128, 2))
    proto = ir.to_proto(model)
    weights = {i.name: i for i in proto.graph.initializer}
    del proto.graph.initializer[:]
    for i, (name, tensor) in enumerate(weights.items()):
        proto.graph.node.insert(i, onnx.helper.make_node("Constant", [], [name], value=tensor))
    path = tmp_path / "old.onnx"
    onnx.save(proto, path)
    result = onnxcomp("factorize", path, "--energy", "0.99", "--calibration", data)
    assert result.code == 0, result.err
    says(result.out, "2 of 2 layers in two factors")
