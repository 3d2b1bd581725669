"""What a result says of where it comes from, and what it must not say."""

from __future__ import annotations

import getpass
import hashlib
import json
import re
import socket
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run
from hostile import FEEDS, two_products

from onnxcomp import __version__

KEYS = {f"onnxcomp.{key}" for key in ("version", "source_sha256", "recipe_sha256", "passes", "calibration")}
COMMANDS = {
    "simplify": ("simplify", "--eval"),
    "quantize": ("quantize", "--calibration"),
    "dynamic": ("quantize", "--mode", "dynamic", "--calibration"),
    "weight-only": ("quantize", "--mode", "weight-only", "--bits", "8", "--min-cosine", "0.5", "--calibration"),
    "precision": ("quantize", "--mode", "fp16", "--calibration"),
    "prune": ("prune", "--ratio", "0.25", "--calibration"),
    "factorize": ("factorize", "--energy", "0.9", "--allow-slower", "--calibration"),
}


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A folder with a telling name, a model with an Identity to remove, and its feeds."""
    folder = tmp_path / "home-of-alice"
    folder.mkdir()
    proto = two_products()
    proto.graph.node[1].input[0] = "a2"
    proto.graph.node.insert(1, onnx.helper.make_node("Identity", ["a"], ["a2"]))
    (folder / "customer.onnx").write_bytes(proto.SerializeToString())
    np.savez(folder / "patients.npz", x=FEEDS)
    return folder


def told(path: Path) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load(path).metadata_props}


@pytest.mark.parametrize("name", COMMANDS)
def test_version_source_recipe_passes_and_kind_of_calibration_are_told(onnxcomp: Run, private: Path, name: str) -> None:
    verb, *options = COMMANDS[name]
    source, result = private / "customer.onnx", private / "result.onnx"
    code, text = onnxcomp(verb, source, *options, private / "patients.npz", "-o", result)
    assert code == 0, text
    found = told(result)
    assert set(found) == KEYS
    assert found["onnxcomp.version"] == __version__
    assert found["onnxcomp.source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert re.fullmatch("[0-9a-f]{64}", found["onnxcomp.recipe_sha256"])
    assert found["onnxcomp.passes"] == name
    calibration = r"none" if name == "simplify" else r"REAL:\d+:[0-9a-f]{16}"
    assert re.fullmatch(calibration, found["onnxcomp.calibration"], re.IGNORECASE)


@pytest.mark.parametrize("name", COMMANDS)
def test_neither_time_nor_host_nor_user_nor_path_is_in_the_file(onnxcomp: Run, private: Path, name: str) -> None:
    verb, *options = COMMANDS[name]
    result = private / "result.onnx"
    code, text = onnxcomp(verb, private / "customer.onnx", *options, private / "patients.npz", "-o", result)
    assert code == 0, text
    content = result.read_bytes()
    words = ["home-of-alice", "customer", "patients", str(private.parent), socket.gethostname(), getpass.getuser()]
    words += [time.strftime("%Y-%m"), time.strftime("%d %b")]
    for word in words:
        if len(word) > 4:  # fewer also occur by chance among weights
            assert word.encode() not in content, word


def test_random_feeds_are_told_and_a_recipe_is_known_by_its_digest(onnxcomp: Run, private: Path) -> None:
    source = private / "customer.onnx"
    digests = set()
    for name, ranges in (("a", "mse"), ("b", "minmax")):
        result = private / f"{name}.onnx"
        code, text = onnxcomp("quantize", source, "--calibration", "random:8", "--ranges", ranges, "-o", result)
        assert code == 0, text
        assert told(result)["onnxcomp.calibration"].lower().startswith("random:")
        digests.add(told(result)["onnxcomp.recipe_sha256"])
    assert len(digests) == 2


def test_what_an_earlier_tool_told_stays_and_what_was_told_of_an_earlier_source_is_replaced(
    onnxcomp: Run, private: Path
) -> None:
    proto = onnx.load(private / "customer.onnx")
    onnx.helper.set_model_props(proto, {"author": "someone", "onnxcomp.source_sha256": "0" * 64})
    (private / "again.onnx").write_bytes(proto.SerializeToString())
    code, text = onnxcomp("simplify", private / "again.onnx", "-o", private / "result.onnx")
    assert code == 0, text
    found = told(private / "result.onnx")
    assert found["author"] == "someone"
    assert found["onnxcomp.source_sha256"] == hashlib.sha256((private / "again.onnx").read_bytes()).hexdigest()


def test_a_plan_and_a_report_name_files_but_no_folder_user_or_time(onnxcomp: Run, private: Path) -> None:
    """A report may name the path that the user typed for the result; a plan has no paths at all."""
    plan = private / "plan.json"
    code, text = onnxcomp(
        *("quantize", private / "customer.onnx", "--calibration", private / "patients.npz", "--dry-run", "-o", plan)
    )
    assert code == 0, text
    assert "home-of-alice" not in plan.read_text()
    json.loads(plan.read_text())
