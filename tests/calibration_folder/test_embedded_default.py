"""The embedded default (calibration/fashion_mnist) and the readers to copy (calibration/readers)."""

from __future__ import annotations

import importlib.util
import wave
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

CALIBRATION = Path(__file__).resolve().parents[2] / "calibration"
DEFAULT = CALIBRATION / "fashion_mnist"
Feed = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load(DEFAULT / "fashion_cnn.onnx")


def load_reader(name: str) -> Any:
    """Runs a reader script as `--calibration py:FILE:feeds` does."""
    spec = importlib.util.spec_from_file_location(f"reader_{name}", CALIBRATION / "readers" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_twice(feeds: Iterable[Feed]) -> list[Feed]:
    """The feeds of the first pass, after a second pass gave the same: what "re-iterable" means."""
    first, second = list(feeds), list(feeds)
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    return first


# The model and its data


def test_the_model_is_valid_and_smaller_than_three_megabytes(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert (DEFAULT / "fashion_cnn.onnx").stat().st_size < 3_000_000


def test_the_signature_is_image_to_logits_with_a_dynamic_batch_at_opset_17(model: onnx.ModelProto) -> None:
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"image": ["batch", 1, 28, 28], "logits": ["batch", 10]}
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]


def test_the_model_leaves_work_for_each_family_of_passes(model: onnx.ModelProto) -> None:
    operators = Counter(node.op_type for node in model.graph.node)
    assert {"BatchNormalization", "Sigmoid", "Mul", "Gemm", "Add"} <= operators.keys()
    groups = [a.i for node in model.graph.node if node.op_type == "Conv" for a in node.attribute if a.name == "group"]
    assert max(groups) > 1, "no depthwise Conv"


def test_every_node_has_a_name_of_its_own(model: onnx.ModelProto) -> None:
    names = [node.name for node in model.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)


def test_the_arrays_have_the_shapes_that_the_readme_states() -> None:
    with np.load(DEFAULT / "calibration.npz") as calibration, np.load(DEFAULT / "test.npz") as test:
        assert calibration.files == ["x"]
        assert sorted(test.files) == ["x", "y"]
        assert (calibration["x"].shape, calibration["x"].dtype) == ((256, 28, 28, 1), np.uint8)
        assert (test["x"].shape, test["x"].dtype) == ((1000, 28, 28, 1), np.uint8)
        assert test["y"].shape == (1000,)
        assert set(test["y"].tolist()) == set(range(10))


def test_no_calibration_image_is_among_the_test_images() -> None:
    with np.load(DEFAULT / "calibration.npz") as calibration, np.load(DEFAULT / "test.npz") as test:
        assert not {image.tobytes() for image in calibration["x"]} & {image.tobytes() for image in test["x"]}


def test_the_model_classifies_91_percent_of_the_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="accuracy is measured on ONNX Runtime")
    monkeypatch.setenv("CALIBRATION_NPZ", str(DEFAULT / "test.npz"))
    reader = load_reader("npz").feeds()
    session = onnxruntime.InferenceSession(DEFAULT / "fashion_cnn.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"image": np.concatenate([feed["image"] for feed in reader])})[0]
    assert (logits.argmax(1) == reader.labels).mean() >= 0.91


# The readers


def test_the_npz_reader_gives_the_embedded_calibration_set_where_no_file_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CALIBRATION_NPZ", raising=False)
    reader = load_reader("npz").feeds()
    feeds = read_twice(reader)
    assert len(feeds) == len(reader) == 256
    assert reader.labels is None
    with np.load(DEFAULT / "calibration.npz") as file:
        np.testing.assert_array_equal(feeds[3]["image"][0, 0], file["x"][3, :, :, 0] / np.float32(255))


def test_the_npz_reader_refuses_arrays_of_different_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "data.npz", a=np.zeros((2, 4, 4, 1)), b=np.zeros((3, 4, 4, 1)))
    monkeypatch.setenv("CALIBRATION_NPZ", str(tmp_path / "data.npz"))
    module = load_reader("npz")
    monkeypatch.setattr(module, "ARRAYS", {"a": "left", "b": "right"})
    with pytest.raises(ValueError, match="different numbers of samples"):
        module.feeds()


def test_the_image_reader_crops_the_centre_normalises_and_labels_by_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pytest.importorskip("PIL.Image", reason="the image reader needs Pillow")
    for colour, folder in (((255, 0, 0), "cat"), ((0, 0, 255), "dog")):
        (tmp_path / folder).mkdir()
        image.new("RGB", (320, 260), colour).save(tmp_path / folder / "1.png")
    monkeypatch.setenv("CALIBRATION_DIR", str(tmp_path))
    module = load_reader("images")
    reader = module.feeds()
    feeds = read_twice(reader)
    assert len(feeds) == len(reader) == 2
    assert reader.labels.tolist() == [0, 1]
    assert (feeds[0]["input"].shape, feeds[0]["input"].dtype.name) == ((1, 3, 224, 224), "float32")
    red = (np.array([1, 0, 0]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(feeds[0]["input"][0, :, 100, 100], red, rtol=1e-6)


def test_the_image_reader_has_no_labels_where_there_is_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pytest.importorskip("PIL.Image", reason="the image reader needs Pillow")
    image.new("L", (30, 40)).save(tmp_path / "grey.png")
    monkeypatch.setenv("CALIBRATION_DIR", str(tmp_path))
    assert load_reader("images").feeds().labels is None


def test_the_audio_reader_averages_channels_and_pads_a_short_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wav(tmp_path / "long.wav", np.tile([[16384, 0]], (40_000, 1)))
    write_wav(tmp_path / "short.wav", np.full((100, 1), -32768))
    monkeypatch.setenv("CALIBRATION_DIR", str(tmp_path))
    feeds = read_twice(load_reader("audio").feeds())
    assert [(feed["input"].shape, feed["input"].dtype.name) for feed in feeds] == [((1, 16_000), "float32")] * 3
    np.testing.assert_array_equal(feeds[0]["input"], 0.25)
    np.testing.assert_array_equal(feeds[2]["input"][0, :100], -1)
    np.testing.assert_array_equal(feeds[2]["input"][0, 100:], 0)


def test_the_audio_reader_refuses_another_sample_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wav(tmp_path / "cd.wav", np.zeros((10, 1)), rate=44_100)
    monkeypatch.setenv("CALIBRATION_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="44100 Hz"):
        list(load_reader("audio").feeds())


def write_wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((samples.shape[1], 2, rate, len(samples), "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())


@pytest.mark.parametrize(("pad", "length"), [(False, 2), (True, 128)])
def test_the_text_reader_gives_one_feed_of_int64_for_each_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pad: bool, length: int
) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="the text reader needs the package tokenizers")
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "hello": 2, "world": 3}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "lines.txt").write_text("hello world\n\nworld unknown\n", encoding="utf-8")
    monkeypatch.setenv("CALIBRATION_TEXT", str(tmp_path / "lines.txt"))
    monkeypatch.setenv("TOKENIZER", str(tmp_path / "tokenizer.json"))
    module = load_reader("text")
    monkeypatch.setattr(module, "PAD", pad)
    reader = module.feeds()
    feeds = read_twice(reader)
    assert len(feeds) == len(reader) == 2
    assert [array.dtype for feed in feeds for array in feed.values()] == [np.int64] * 6
    assert feeds[1]["input_ids"].tolist() == [[3, 1] + [0] * (length - 2)]
    assert feeds[1]["attention_mask"].tolist() == [[1, 1] + [0] * (length - 2)]
    assert feeds[1]["token_type_ids"].tolist() == [[0] * length]


@pytest.mark.parametrize("name", ["images", "audio"])
def test_an_empty_folder_is_an_error_that_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "images":
        pytest.importorskip("PIL.Image", reason="the image reader needs Pillow")
    monkeypatch.setenv("CALIBRATION_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="set CALIBRATION_DIR"):
        load_reader(name).feeds()


def test_each_reader_is_at_most_sixty_lines_and_shows_its_command_line() -> None:
    scripts = sorted((CALIBRATION / "readers").glob("*.py"))
    assert [script.stem for script in scripts] == ["audio", "images", "npz", "text"]
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 60
        assert f"--calibration py:calibration/readers/{script.name}:feeds" in text
