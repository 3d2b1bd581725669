"""Every exit code of the contract, each by what a user would do to meet it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import Command

from onnxcomp.cli.help import EXIT_CODES
from onnxcomp.driver import jobs

ROOT = Path(__file__).parents[2]


def says(text: str, *patterns: str) -> None:
    """One message without traceback that holds all patterns."""
    assert "Traceback" not in text
    for pattern in patterns:
        assert re.search(pattern, text), text


def test_0_a_pass_does_what_was_asked(onnxcomp: Command, model: Path, data: Path) -> None:
    result = onnxcomp("quantize", model, "--calibration", data)
    assert result.code == 0, result.err
    assert model.with_name("model.opt.onnx").is_file()


def test_0_the_original_is_handed_back_under_the_name_of_the_output(onnxcomp: Command, model: Path) -> None:
    result = onnxcomp("optimize", model)
    assert result.code == 0, result.err
    assert result.err.splitlines()[-1].startswith("NOTHING GAINED")
    assert model.with_name("model.opt.onnx").is_file()


def test_1_verify_of_a_different_model(onnxcomp: Command, model: Path, other: Path, data: Path) -> None:
    result = onnxcomp("verify", other, "--against", model, "--eval", data, "--min-cosine", "0.999")
    assert result.code == 1, result.err
    assert result.err.splitlines()[-1].startswith("FAILED")


def test_1_a_gate_that_no_int8_model_meets_leaves_no_file(onnxcomp: Command, model: Path, data: Path) -> None:
    result = onnxcomp("quantize", model, "--calibration", data, "--min-cosine", "1.0")
    assert result.code == 1
    says(result.err, "cosine of logits is 0.99", "nothing was written")
    assert sorted(p.name for p in model.parent.iterdir()) == ["data.npz", "model.onnx"]


@pytest.mark.parametrize(
    ("words", "patterns"),
    [
        (["optmize", "M"], ["No verb 'optmize'", "Did you mean 'optimize'"]),
        (["optimize", "M", "--calibratoin", "x"], ["No such option '--calibratoin'", "--calibration", "--help"]),
        (["optimize"], ["Missing argument 'MODEL'"]),
        (["optimize", "M", "--goal", "speed"], ["'speed' is not one of"]),
        (["optimize", "M", "--threads", "-1"], ["--threads"]),
        (["bench", "M", "--threads", "99999"], ["this machine has"]),
        (["optimize", "M", "--shape", "image:1,3"], ["--shape 'image:1,3' is not NAME=1,3,224,224"]),
        (["optimize", "M", "--shape", "image=1,0"], ["sizes are above zero"]),
        (["optimize", "M", "--shape", "imgae=1,3,16,16"], ["imgae", "image"]),
        (["optimize", "M", "--shape", "N=1", "--shape", "N=2"], ["twice"]),
        (["optimize", "M", "--fix-shape"], ["--fix-shape needs the shapes", "--shape"]),
        (["optimize", "M", "--target", "cpu-vnnni"], ["unknown target 'cpu-vnnni'", "did you mean 'cpu-vnni'"]),
        (["optimize", "M", "--only", "Covn"], ["'Covn' matches no node", "did you mean 'Conv'"]),
        (["optimize", "M", "--report", "r.pdf"], [r"no report is written as \.pdf", r"\.html, \.json, \.md"]),
        (["optimize", "M", "--max-drop", "0.01"], ["--max-drop needs labels"]),
        (["optimize", "M", "--metric", "top2"], ["top2"]),
        (["quantize", "M"], ["quantize needs calibration data", "--calibration"]),
        (["optimize", "M", "--calibration", "npz:D?scal=255"], ["no option 'scal'", "scale"]),
        (["optimize", "M", "--calibration", "npy:D"], ["no kind of data 'npy'", "npz"]),
        (["verify", "M"], ["--against"]),
        (["bench"], ["MODEL"]),
    ],
)
def test_2_wrong_usage_names_what_is_near(
    onnxcomp: Command, model: Path, data: Path, words: list[str], patterns: list[str]
) -> None:
    result = onnxcomp(*(w.replace("M", str(model), w == "M").replace("D", str(data), ":D" in w) for w in words))
    assert result.code == 2, result.err
    says(result.err, *patterns)
    assert not result.out
    assert not model.with_name("model.opt.onnx").exists()


def test_2_a_recipe_with_an_unknown_key_names_its_place_and_the_nearest(
    onnxcomp: Command, model: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[[step]]\npass = "quantize"\nrange = "mse"\n')
    result = onnxcomp("optimize", model, "--recipe", recipe)
    assert result.code == 2
    says(result.err, r"step\[0\]\.range", "did you mean 'ranges'")


def test_3_a_provider_that_is_not_here(onnxcomp: Command, model: Path) -> None:
    result = onnxcomp("optimize", model, "--ep", "cuda")
    if result.code == 0:
        pytest.skip("this machine has CUDA")
    assert result.code == 3
    says(result.err, "(?i)cuda", "pip install")


@pytest.mark.parametrize(
    "content", [b"", b"this is no model\n", b"\x00" * 64, None], ids=["empty", "text", "zeros", "folder"]
)
def test_4_a_file_that_is_no_model(onnxcomp: Command, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.onnx"
    path.mkdir() if content is None else path.write_bytes(content)
    result = onnxcomp("optimize", path)
    assert result.code == 4, result.err
    says(result.err, "model.onnx")


def test_4_a_model_that_is_not_there(onnxcomp: Command, tmp_path: Path) -> None:
    result = onnxcomp("optimize", tmp_path / "model.onnx")
    assert result.code == 4
    says(result.err, r"model\.onnx")
    assert onnxcomp("optimize", ".").code == 4


def test_4_data_that_is_not_there_or_is_no_archive(onnxcomp: Command, model: Path, tmp_path: Path) -> None:
    assert onnxcomp("optimize", model, "--calibration", tmp_path / "none.npz").code == 4
    corrupt = tmp_path / "corrupt.npz"
    corrupt.write_bytes(b"PK\x03\x04 but no more")
    result = onnxcomp("optimize", model, "--calibration", corrupt)
    assert result.code == 4
    says(result.err, r"corrupt\.npz")


def test_4_feeds_with_nan_name_the_input(onnxcomp: Command, model: Path, tmp_path: Path) -> None:
    images = np.zeros((8, 3, 16, 16), np.float32)
    images[3, 0, 0, 0] = np.nan
    np.savez(tmp_path / "nan.npz", image=images)
    result = onnxcomp("quantize", model, "--calibration", tmp_path / "nan.npz")
    assert result.code == 4, result.err
    says(result.err, "NaN", "image")


def test_5_the_output_exists_and_is_replaced_with_force_only(onnxcomp: Command, model: Path) -> None:
    output = model.with_name("model.opt.onnx")
    output.write_bytes(b"precious")
    result = onnxcomp("simplify", model)
    assert result.code == 5
    says(result.err, "exists", "--force")
    assert output.read_bytes() == b"precious"
    assert onnxcomp("simplify", model, "--force").code == 0
    assert output.read_bytes() != b"precious"


def test_5_the_input_is_never_the_output_even_with_force(onnxcomp: Command, model: Path) -> None:
    before = model.read_bytes()
    link = model.with_name("link.onnx")
    link.symlink_to(model)
    for output in (model, link):
        result = onnxcomp("simplify", model, "-o", output, "--force")
        assert result.code == 5
        says(result.err, "is the input itself")
    assert model.read_bytes() == before


@pytest.mark.parametrize("option", ["-o", "--report"])
def test_5_a_path_in_no_folder_is_refused_before_any_work(
    onnxcomp: Command, model: Path, data: Path, option: str
) -> None:
    for folder in (model.parent / "nowhere", data):  # a file as a folder
        result = onnxcomp("simplify", model, option, folder / "x.json")
        assert result.code == 5, result.err
        says(result.err, "folder")
        assert "loading" not in result.err


def test_6_the_time_limit(onnxcomp: Command, model: Path, data: Path) -> None:
    result = onnxcomp("optimize", model, "--calibration", data, "--time-limit", "0.01")
    assert result.code == 6
    says(result.err, "time limit")
    assert sorted(p.name for p in model.parent.iterdir()) == ["data.npz", "model.onnx"]


def test_6_out_of_memory(onnxcomp: Command, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: object, **options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(jobs, "simplify", exhausted)
    assert onnxcomp("simplify", model).code == 6


def test_70_our_fault_is_one_message_and_a_traceback_only_with_vv(
    onnxcomp: Command, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise KeyError("weights")

    monkeypatch.setattr(jobs, "simplify", broken)
    result = onnxcomp("simplify", model)
    assert result.code == 70
    says(result.err, "our fault: KeyError: 'weights'", "please report it")
    loud = onnxcomp("simplify", model, "-vv")
    assert loud.code == 70
    assert "Traceback" in loud.err


def test_a_traceback_of_a_users_mistake_does_not_change_the_exit_code(onnxcomp: Command, tmp_path: Path) -> None:
    result = onnxcomp("simplify", tmp_path / "none.onnx", "-v", "-v")
    assert result.code == 4
    assert "Traceback" in result.err


def _heed_interrupts() -> None:
    """A test run in the background of a shell inherits interrupts that are ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.skipif(sys.platform == "win32", reason="no process groups")
def test_130_interrupted_leaves_neither_output_nor_temporary_files_nor_children(model: Path, data: Path) -> None:
    temporary = model.parent / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "onnxcomp.cli.main",
            "optimize",
            model,
            "--calibration",
            data,
            "--report",
            model.with_name("r.json"),
        ],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=model.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        start_new_session=True,  # so that the signal reaches the group, as Ctrl-C does, and not this test
        preexec_fn=_heed_interrupts,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "measuring latency" in line:
            break
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(60) == 130
    assert "Traceback" not in rest
    assert "interrupted" in rest
    temporary.rmdir()  # fails unless it is empty
    assert sorted(p.name for p in model.parent.iterdir()) == ["data.npz", "model.onnx"]
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_each_exit_code_is_in_the_help_and_is_tested_here(onnxcomp: Command) -> None:
    listed = [int(code) for code in re.findall(r"^ +(\d+)  ", onnxcomp("--help").out, re.MULTILINE)]
    tested = {int(name.split("_")[1]) for name in globals() if re.match(r"test_\d+_", name)}
    assert listed == [code for code, _ in EXIT_CODES]
    assert tested == set(listed)


def test_5_a_link_to_nothing_is_an_output_that_exists_and_is_refused_before_any_work(
    onnxcomp: Command, model: Path
) -> None:
    link = model.with_name("link.onnx")
    link.symlink_to("nowhere.onnx")
    result = onnxcomp("simplify", model, "-o", link)
    assert result.code == 5
    assert "loading" not in result.err
    assert link.is_symlink()
