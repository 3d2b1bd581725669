"""Files that are no usable model, given to every verb that loads one: one clear sentence, exit 4, nothing written."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import Command
from onnx import TensorProto, helper

VERBS = {
    "optimize": ["optimize", "BAD"],
    "simplify": ["simplify", "BAD"],
    "prune": ["prune", "BAD", "--ratio", "0.5"],
    "factorize": ["factorize", "BAD", "--energy", "0.9"],
    "quantize": ["quantize", "BAD", "--calibration", "random:8"],
    "verify": ["verify", "BAD", "--against", "GOOD"],
    "verify-against": ["verify", "GOOD", "--against", "BAD"],
    "compare-a": ["compare", "BAD", "GOOD"],
    "compare-b": ["compare", "GOOD", "BAD"],
    "bench": ["bench", "BAD"],
    "bench-second": ["bench", "GOOD", "BAD"],
}


def corrupted(path: Path, good: bytes) -> None:
    """The beginning of a real file, as an interrupted download leaves it."""
    path.write_bytes(good[: len(good) // 2])


def scrambled(path: Path, good: bytes) -> None:
    path.write_bytes(bytes(255 - b for b in good))


def text(path: Path, good: bytes) -> None:
    path.write_text("<!DOCTYPE html>\n<html><title>Sign in</title></html>\n")


def empty(path: Path, good: bytes) -> None:
    path.touch()


def folder(path: Path, good: bytes) -> None:
    path.mkdir()


def missing(path: Path, good: bytes) -> None:
    return


def lfs_pointer(path: Path, good: bytes) -> None:
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1639803\n")


def empty_data(path: Path, good: bytes) -> None:
    """A graph whose weights lie in a file of no bytes."""
    model = onnx.load_model_from_string(good)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.data")
    path.write_bytes(model.SerializeToString())
    path.with_name("weights.data").touch()


def no_data(path: Path, good: bytes) -> None:
    empty_data(path, good)
    path.with_name("weights.data").unlink()


def without_outputs(path: Path, good: bytes) -> None:
    model = onnx.load_model_from_string(good)
    del model.graph.output[:]
    path.write_bytes(model.SerializeToString())


def without_graph(path: Path, good: bytes) -> None:
    path.write_bytes(onnx.ModelProto(ir_version=8).SerializeToString())


def cyclic(path: Path, good: bytes) -> None:
    """A node that waits for itself."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])
    nodes = [helper.make_node("Add", ["image", "b"], ["a"]), helper.make_node("Add", ["a", "image"], ["b"])]
    nodes.append(helper.make_node("Relu", ["b"], ["logits"]))
    graph = helper.make_graph(nodes, "g", [image], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def unknown_operator(path: Path, good: bytes) -> None:
    model = onnx.load_model_from_string(good)
    model.graph.node[0].op_type = "Convv"
    path.write_bytes(model.SerializeToString())


BAD: dict[Callable[[Path, bytes], None], str] = {
    corrupted: r"bad\.onnx|complete",
    scrambled: r"bad\.onnx",
    text: "text file",
    empty: "empty",
    folder: "folder",
    missing: r"no file .*bad\.onnx",
    lfs_pointer: r"Git LFS pointer.*\n.*git lfs pull",
    empty_data: r"weights\.data",
    no_data: r"weights\.data",
    without_outputs: "output",
    without_graph: "graph",
    cyclic: "cycl|order|circ",
    unknown_operator: "Convv",
}


# `inspect` runs nothing: it needs no ONNX Runtime, and an operator that none knows is a finding there.
INSPECT = {"inspect": ["inspect", "BAD"]}
CASES = [
    (verb, kind) for verb in VERBS | INSPECT for kind in BAD if verb not in INSPECT or kind is not unknown_operator
]


@pytest.mark.parametrize(("verb", "kind"), CASES, ids=[f"{verb}, {kind.__name__}" for verb, kind in CASES])
def test_it_is_one_sentence_and_exit_4(
    onnxcomp: Command, model: Path, verb: str, kind: Callable[[Path, bytes], None]
) -> None:
    bad = model.with_name("bad.onnx")
    kind(bad, model.read_bytes())
    before = sorted(model.parent.rglob("*"))
    places = {"BAD": bad, "GOOD": model}
    result = onnxcomp(*(places.get(word, word) for word in (VERBS | INSPECT)[verb]))
    assert result.code == 4, result.err
    assert "Traceback" not in result.err
    message = [line for line in result.err.splitlines() if not line.startswith("· ")]
    assert message[0].startswith("onnxcomp: ")
    assert len(message) <= 3
    assert all(line.startswith("  ") for line in message[1:]), "one message, then what to do"
    assert re.search(BAD[kind], "\n".join(message)), result.err
    assert "/tmp/onnxcomp-" not in result.err
    assert not result.out
    assert sorted(model.parent.rglob("*")) == before


def test_the_good_model_is_good(onnxcomp: Command, model: Path) -> None:
    for verb in ("simplify", "verify"):
        words = [{"BAD": model, "GOOD": model}.get(word, word) for word in VERBS[verb]]
        assert onnxcomp(*words).code == 0


@pytest.mark.parametrize("verb", VERBS)
def test_without_onnx_runtime_the_line_that_installs_it_is_named(
    onnxcomp: Command, model: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxcomp.runtime import library

    found = importlib.import_module

    def gone(name: str, package: str | None = None) -> object:
        if name == "onnxruntime":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found(name, package)

    library.onnxruntime.cache_clear()
    monkeypatch.setattr(importlib, "import_module", gone)
    result = onnxcomp(*({"BAD": model, "GOOD": model}.get(word, word) for word in VERBS[verb]))
    monkeypatch.undo()
    library.onnxruntime.cache_clear()
    assert result.code == 3, result.err
    assert 'pip install "onnxcomp[cpu]"' in result.err
    assert "Traceback" not in result.err
    assert sorted(p.name for p in model.parent.iterdir()) == ["model.onnx"]


def test_without_pillow_images_name_the_line_that_installs_it(
    onnxcomp: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "PIL", None)
    for verb in ("optimize", "quantize", "compare"):
        words = [verb, model, *([model] if verb == "compare" else []), "--calibration", f"images:{tmp_path / 'photos'}"]
        result = onnxcomp(*words)
        assert result.code == 3, result.err
        assert 'pip install "onnxcomp[images]"' in result.err


def test_feeds_for_another_model_are_told_by_the_first_of_them(onnxcomp: Command, model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", image=np.zeros((4, 1, 2, 2), np.float32))
    result = onnxcomp("compare", model, model, "--eval", tmp_path / "d.npz")
    assert result.code == 4, result.err
    assert "image" in result.err
