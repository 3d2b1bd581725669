"""`onnxcomp prune` as a user meets it: exit codes, messages, plans, reports."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import Command
from haste import nodes_timed_by_size

from onnxcomp.driver import single


def says(text: str, *patterns: str) -> None:
    """One message without traceback that holds all patterns."""
    assert "Traceback" not in text
    for pattern in patterns:
        assert re.search(pattern, text), text


def result_of(model: Path) -> Path:
    return model.with_name("model.opt.onnx")


def widths(path: Path) -> dict[str, tuple[int, ...]]:
    return {i.name: tuple(i.dims) for i in onnx.load(path).graph.initializer}


def test_0_half_of_the_macs_with_data(onnxcomp: Command, model: Path, data: Path) -> None:
    result = onnxcomp("prune", model, "--macs", "0.5", "--round-to", "1", "--calibration", data)
    assert result.code == 0, result.err
    says(result.out, "mask equivalence holds", "refitted", "Conv_[ac] ", "of the MACs")
    assert result.err.splitlines()[-1].startswith("DONE")
    found = widths(result_of(model))
    assert found["w1"][0] + found["w2"][0] < 48
    assert "RANDOM" not in result.err


def test_0_without_data_it_works_and_says_random(onnxcomp: Command, model: Path) -> None:
    result = onnxcomp("prune", model, "--ratio", "0.5", "--round-to", "1")
    assert result.code == 0, result.err
    says(result.out + result.err, "RANDOM")
    assert "refitted" not in result.out
    assert sum(widths(result_of(model))[w][0] for w in ("w1", "w2")) == 24


def test_0_slower_is_kept_with_a_loud_warning_where_the_numbers_are_the_users(
    onnxcomp: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versus = single.versus

    def slower(*args: object) -> object:
        found = versus(*args)  # type: ignore[arg-type]
        return found.model_copy(update={"speedup": {"after": 0.6}, "interval": {"after": (0.59, 0.61)}})

    monkeypatch.setattr(single, "versus", slower)
    result = onnxcomp("prune", model, "--ratio", "0.2", "--round-to", "1")
    assert result.code == 0, result.err
    says(result.out + result.err, "SLOWER: the result runs 0.60 ×")
    assert result_of(model).is_file()


def test_1_slower_is_refused_where_a_latency_was_asked_for(
    onnxcomp: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxcomp.passes.prune import latency_choice

    versus = single.versus

    def slower(*args: object) -> object:
        return versus(*args).model_copy(update={"speedup": {"after": 0.9}})  # type: ignore[arg-type]

    monkeypatch.setattr(single, "versus", slower)
    nodes_timed_by_size(monkeypatch, latency_choice)
    monkeypatch.setattr(latency_choice, "_measured", lambda one, other, ctx: (1.0, 1.0 if one is other else 0.4))
    result = onnxcomp("prune", model, "--latency", "0.6")
    assert result.code == 1, result.err
    says(result.err, "not faster", "nothing was written", "--macs")
    assert not result_of(model).exists()


def test_0_the_original_is_handed_back_when_no_cut_is_faster(
    onnxcomp: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxcomp.passes.prune import latency_choice

    nodes_timed_by_size(monkeypatch, latency_choice)
    monkeypatch.setattr(latency_choice, "_measured", lambda one, other, ctx: (1.0, 1.0 if one is other else 1.2))
    result = onnxcomp("prune", model, "--latency", "0.6")
    assert result.code == 0, result.err
    says(result.err, "NOTHING GAINED", "no cut that was tried is faster")
    assert result_of(model).read_bytes() == model.read_bytes()


def test_1_a_gate_that_is_not_met_leaves_no_file(onnxcomp: Command, model: Path) -> None:
    result = onnxcomp("prune", model, "--ratio", "0.7", "--round-to", "1", "--min-cosine", "0.9999")
    assert result.code == 1, result.err
    says(result.err, "cosine of logits is", "nothing was written", "optimize --prune")
    assert not result_of(model).exists()


@pytest.mark.parametrize(
    ("words", "patterns"),
    [
        ([], ["how much", "--ratio", "--macs", "--params", "--latency"]),
        (["--ratio", "0.5", "--macs", "0.5"], ["ratio and macs", "two budgets"]),
        (["--params", "0.5", "--latency", "8ms"], ["params and latency", "two budgets"]),
        (["--ratio", "1.5"], ["--ratio", "less than 1"]),
        (["--ratio", "-1"], ["--ratio", "greater than or equal to 0"]),
        (["--ratio", "nan"], ["--ratio"]),
        (["--macs", "0"], ["--macs"]),
        (["--macs", "50%"], ["--macs", "50%"]),
        (["--latency", "fast"], ["--latency", "'fast'", "8ms"]),
        (["--latency", "NaNms"], ["--latency", "'NaNms'"]),
        (["--ratio", "0.5", "--round-to", "0"], ["--round-to"]),
        (["--ratio", "0.5", "--round-to", "x"], ["--round-to", "'x' is neither auto nor a number"]),
        (["--ratio", "0.5", "--max-ratio", "2"], ["--max-ratio"]),
        (["--ratio", "0.5", "--importance", "l3"], ["'l3' is not one of"]),
        (["--ratio", "0.5", "--scope", "local"], ["'local' is not one of"]),
        (["--ratio", "0.5", "--importance", "obs"], ["importance obs", "calibration data", "--calibration"]),
        (["--ratio", "0.5", "--refit", "least-squares"], ["refit least-squares", "calibration data"]),
        (["--ratio", "0.5", "--only", "Covn"], ["'Covn' matches no node", "did you mean 'Conv'"]),
        (["--raito", "0.5"], ["No such option '--raito'", "--ratio"]),
        (["--plan", "none.json"], ["none.json"]),
    ],
)
def test_2_wrong_usage_is_named(onnxcomp: Command, model: Path, words: list[str], patterns: list[str]) -> None:
    result = onnxcomp("prune", model, *words)
    assert result.code == 2, result.err
    says(result.err, *patterns)
    assert not result.out
    assert not result_of(model).exists()


def test_2_a_plan_with_a_budget_of_its_own_is_not_given_another(onnxcomp: Command, model: Path) -> None:
    plan = model.with_name("plan.json")
    assert onnxcomp("prune", model, "--ratio", "0.5", "--dry-run", "-o", plan).code == 0
    result = onnxcomp("prune", model, "--plan", plan, "--macs", "0.5")
    assert result.code == 2, result.err
    says(result.err, "--plan", "--macs")


@pytest.mark.parametrize(
    ("edit", "patterns"),
    [
        (lambda p: p["cells"][0].update(keep=[]), [r"cells\.0", "keeps nothing"]),
        (lambda p: p["cells"][1].update(keep=[5, 4]), [r"cells\.1", "ascending"]),
        (lambda p: p["cells"][0].update(name="conv"), ["'conv'"]),
        (lambda p: p.update(pass_name="quantize"), ["quantize"]),
        (lambda p: p.update(source_sha256="0" * 64), ["another model"]),
        (lambda p: p.pop("cells"), ["cells"]),
    ],
)
def test_2_a_bad_plan_is_refused_with_its_place(
    onnxcomp: Command, model: Path, edit: object, patterns: list[str]
) -> None:
    plan = model.with_name("plan.json")
    assert onnxcomp("prune", model, "--ratio", "0.5", "--round-to", "1", "--dry-run", "-o", plan).code == 0
    data = json.loads(plan.read_text())
    edit(data)  # type: ignore[operator]
    plan.write_text(json.dumps(data))
    result = onnxcomp("prune", model, "--plan", plan)
    assert result.code == 2, result.err
    says(result.err, *patterns)
    assert not result_of(model).exists()


def test_4_nan_in_the_feeds_names_the_input(onnxcomp: Command, model: Path, tmp_path: Path) -> None:
    images = np.zeros((8, 3, 16, 16), np.float32)
    images[3, 0, 0, 0] = np.nan
    np.savez(tmp_path / "nan.npz", image=images)
    result = onnxcomp("prune", model, "--ratio", "0.5", "--calibration", tmp_path / "nan.npz")
    assert result.code == 4, result.err
    says(result.err, "NaN", "image")


def test_4_an_empty_folder_of_feeds(onnxcomp: Command, model: Path, tmp_path: Path) -> None:
    (tmp_path / "feeds").mkdir()
    result = onnxcomp("prune", model, "--ratio", "0.5", "--calibration", tmp_path / "feeds")
    assert result.code == 4, result.err
    says(result.err, "feeds")


def test_5_an_output_that_exists_is_kept(onnxcomp: Command, model: Path) -> None:
    result_of(model).write_bytes(b"precious")
    result = onnxcomp("prune", model, "--ratio", "0.5")
    assert result.code == 5, result.err
    says(result.err, "exists", "--force")
    assert result_of(model).read_bytes() == b"precious"
    assert onnxcomp("prune", model, "--ratio", "0.5", "--force", "--round-to", "1").code == 0


def test_5_a_plan_that_can_not_be_written_leaves_nothing_behind(
    onnxcomp: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, replace = model.with_name("plan.json"), os.replace

    def full(source: Path, target: Path) -> None:
        if target == plan:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    result = onnxcomp("prune", model, "--ratio", "0.5", "--dry-run", "-o", plan)
    assert result.code == 5, result.err
    says(result.err, "the plan .*plan.json can't be written")
    assert sorted(p.name for p in model.parent.iterdir()) == ["model.onnx"]


def test_6_the_time_limit(onnxcomp: Command, model: Path, data: Path) -> None:
    result = onnxcomp("prune", model, "--ratio", "0.5", "--calibration", data, "--time-limit", "0.01")
    assert result.code == 6, result.err
    assert not result_of(model).exists()


def test_a_dry_run_shows_the_cells_and_writes_nothing(onnxcomp: Command, model: Path) -> None:
    before = sorted(p.name for p in model.parent.iterdir())
    result = onnxcomp("prune", model, "--ratio", "0.5", "--round-to", "1", "--dry-run")
    assert result.code == 0, result.err
    says(result.out, "Conv_a", "Conv_c", "50.0% of the channels go")
    assert sorted(p.name for p in model.parent.iterdir()) == before


def test_a_dry_run_in_json_is_the_plan_and_replays_to_the_same_bytes(
    onnxcomp: Command, model: Path, data: Path
) -> None:
    words = ("--macs", "0.5", "--round-to", "1", "--calibration", data)
    printed = onnxcomp("prune", model, *words, "--dry-run", "--format", "json")
    assert printed.code == 0, printed.err
    plan = json.loads(printed.out)
    assert {c["name"] for c in plan["cells"]} == {"Conv_a", "Conv_c"}
    assert all(c["producers"] and c["keep"] for c in plan["cells"])
    saved = model.with_name("plan.json")
    assert onnxcomp("prune", model, *words, "--dry-run", "-o", saved).code == 0
    assert json.loads(saved.read_text()) == plan
    files = []
    for options in (words, ("--plan", saved, "--calibration", data), ("--plan", saved, "--calibration", data)):
        assert onnxcomp("prune", model, *options, "--force").code == 0
        files.append(result_of(model).read_bytes())
    assert files[0] == files[1] == files[2]


def test_an_edited_plan_decides_what_stays(onnxcomp: Command, model: Path) -> None:
    plan = model.with_name("plan.json")
    assert onnxcomp("prune", model, "--ratio", "0.5", "--round-to", "1", "--dry-run", "-o", plan).code == 0
    data = json.loads(plan.read_text())
    data["cells"][0]["keep"], data["cells"][1]["keep"] = [2, 5, 7], [0]
    plan.write_text(json.dumps(data))
    result = onnxcomp("prune", model, "--plan", plan)
    assert result.code == 0, result.err
    found = widths(result_of(model))
    assert (found["w1"], found["w2"], found["w3"]) == ((3, 3, 3, 3), (1, 3, 3, 3), (10, 1))


def test_the_json_report_holds_the_channels(onnxcomp: Command, model: Path) -> None:
    result = onnxcomp("prune", model, "--ratio", "0.5", "--round-to", "1", "--format", "json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    channels = {c["name"]: c for s in report["steps"] for c in s["channels"]}
    found = widths(result_of(model))
    assert channels["Conv_a"]["size"] == 16
    assert channels["Conv_a"]["kept"] == found["w1"][0]
    assert channels["Conv_c"]["kept"] == found["w2"][0]
    assert report["verdict"] == "DONE"


def test_a_written_report_and_metadata_name_the_pass(onnxcomp: Command, model: Path) -> None:
    report = model.with_name("r.md")
    assert onnxcomp("prune", model, "--ratio", "0.5", "--round-to", "1", "--report", report).code == 0
    assert "channels kept" in report.read_text()
    props = {p.key: p.value for p in onnx.load(result_of(model)).metadata_props}
    assert props["onnxcomp.passes"] == "prune"


def test_quiet_says_nothing(onnxcomp: Command, model: Path) -> None:
    result = onnxcomp("prune", model, "--ratio", "0.5", "--round-to", "1", "-q")
    assert (result.code, result.out, result.err) == (0, "", "")
