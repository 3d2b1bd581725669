"""Whatever stops it, and wherever: the file that was there or the new one is whole, and nothing else is left."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hostile import FEEDS, two_products
from stopping import finish, start

from onnxcomp.report.files import write_file

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals, mounts and limits of POSIX")

DATA = ("--calibration", "data.npz")
STAGES = [
    (("optimize", "m.onnx", *DATA), "loading"),
    (("optimize", "m.onnx", *DATA), "trying the model in a child process"),
    (("optimize", "m.onnx", *DATA), "calibrating"),
    (("optimize", "m.onnx", *DATA), "comparing outputs"),
    (("optimize", "m.onnx", *DATA), "measuring latency"),
    (("simplify", "m.onnx"), "comparing outputs"),
    (("quantize", "m.onnx", *DATA, "--sensitivity", "units.json"), "measuring units"),
    (("quantize", "m.onnx", *DATA, "--mode", "weight-only"), "rounding layers"),
    (("prune", "m.onnx", *DATA, "--ratio", "0.5"), "refitting"),
    (("factorize", "m.onnx", *DATA, "--energy", "0.9"), "finding directions"),
    (("verify", "m.onnx", "--against", "m.onnx", "--eval", "data.npz"), "comparing outputs"),
    (("bench", "m.onnx"), "measuring latency"),
]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with a model and its feeds."""
    folder = tmp_path / "work"
    folder.mkdir()
    proto = two_products()
    proto.graph.node[1].input[0] = "a2"
    proto.graph.node.insert(1, onnx.helper.make_node("Identity", ["a"], ["a2"]))
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    np.savez(folder / "data.npz", x=FEEDS)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


STOPS = [(*stage, signal.SIGINT) for stage in STAGES] + [(*STAGES[3], signal.SIGTERM)]


@pytest.mark.parametrize(("words", "stage", "stop"), STOPS, ids=[f"{w[0]}, {t}, {s.name}" for w, t, s in STOPS])
def test_an_interrupt_in_any_stage_ends_with_130_and_leaves_nothing(
    work: Path, words: tuple[str, ...], stage: str, stop: signal.Signals
) -> None:
    report = () if words[0] == "bench" else ("--report", "r.json")
    process = start([*words, *report], work)
    assert process.stderr is not None
    for line in process.stderr:
        if stage in line:
            break
    else:
        pytest.fail(f"there was no stage {stage!r}")
    os.killpg(process.pid, stop)
    code, text = finish(process)
    assert code == 130, text
    assert "Traceback" not in text
    assert names(work) == ["data.npz", "m.onnx"]
    assert names(work.parent / "tmp") == []


STEPS = [
    (call, when, n)
    for call, n in (("fsync", 0), ("replace", 0), ("fsync", 2), ("replace", 1))
    for when in ("before", "after")
]


@pytest.mark.parametrize(("call", "when", "n"), STEPS)
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_stopped_while_it_writes_a_model_and_a_report_each_is_the_old_or_the_new(
    work: Path, call: str, when: str, n: int, how: str
) -> None:
    (work / "o.onnx").write_bytes((work / "m.onnx").read_bytes())
    (work / "r.json").write_text('{"old": true}')
    words = ["simplify", "m.onnx", "-o", "o.onnx", "--force", "--report", "r.json"]
    code, text = finish(start(words, work, (call, when, str(n), how)))
    assert code == (130 if how == "SIGINT" else -9), text
    onnx.checker.check_model(onnx.load(work / "o.onnx"))
    json.loads((work / "r.json").read_text())
    left = [name for name in names(work) if name not in ("data.npz", "m.onnx", "o.onnx", "r.json")]
    if how == "SIGINT":
        assert left == []
    assert all(name.startswith((".o.onnx.", ".r.json.")) and name.endswith(".tmp") for name in left)
    assert len(left) <= 1


def test_what_a_killed_process_left_is_removed_by_the_next_once_it_is_old(work: Path) -> None:
    words = ["simplify", "m.onnx", "-o", "o.onnx"]
    assert finish(start(words, work, ("replace", "before", "0", "SIGKILL")))[0] == -9
    (left,) = [p for p in work.iterdir() if p.suffix == ".tmp"]
    young, foreign = work / ".o.onnx.0123456789abcdef.tmp", work / ".o.onnx.backup.tmp"
    young.write_bytes(b"being written by another")
    foreign.write_bytes(b"somebody's")
    for path in (left, foreign):
        os.utime(path, (0, 0))
    assert finish(start(words, work))[0] == 0
    assert names(work) == sorted([young.name, foreign.name, "data.npz", "m.onnx", "o.onnx"])


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_text_file_is_the_old_or_the_new_one_when_its_writer_is_killed(tmp_path: Path, call: str, when: str) -> None:
    """Reports, plans and sensitivity files all go this way."""
    path = tmp_path / "plan.json"
    write_file(path, "old", "plan")
    child = os.fork()
    if child == 0:
        original = getattr(os, call)

        def stopping(*arguments: object) -> None:
            if when == "after":
                original(*arguments)
            os._exit(9)

        setattr(os, call, stopping)
        try:
            write_file(path, "new" * 10_000, "plan")
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert path.read_text() == ("new" * 10_000 if (call, when) == ("replace", "after") else "old")
    write_file(path, "newer", "plan")
    assert path.read_text() == "newer"


def test_a_text_file_is_not_written_through_a_link_that_somebody_planted(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "r.md").symlink_to("precious")
    write_file(tmp_path / "r.md", "report", "report")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "r.md").is_symlink()


def test_two_runs_at_once_with_one_output_end_with_one_whole_model_and_report(work: Path) -> None:
    words = ["simplify", "m.onnx", "-o", "o.onnx", "--force", "--report", "r.json"]
    ends = [finish(process) for process in [start(words, work) for _ in range(2)]]
    assert [code for code, _ in ends] == [0, 0], ends
    onnx.checker.check_model(onnx.load(work / "o.onnx"))
    json.loads((work / "r.json").read_text())
    assert names(work) == ["data.npz", "m.onnx", "o.onnx", "r.json"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no right to mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_exit_code_5_and_leaves_the_old_file(work: Path, small_disk: Path) -> None:
    (small_disk / "o.onnx").write_bytes(b"old")
    code, text = finish(start(["simplify", "m.onnx", "-o", small_disk / "o.onnx", "--force"], work))
    assert code == 5, text
    assert "No space left" in text
    assert names(small_disk) == ["o.onnx"]
    assert (small_disk / "o.onnx").read_bytes() == b"old"


@pytest.mark.parametrize("option", ["--report", "--dry-run -o", "--sensitivity"])
def test_a_full_disk_under_a_report_a_plan_or_a_sensitivity_file_is_exit_code_5(
    work: Path, small_disk: Path, option: str
) -> None:
    (small_disk / "fill").write_bytes(bytes(16 << 10))
    words = ["quantize", "m.onnx", *DATA, *option.split(), small_disk / "x.json"]
    code, text = finish(start(words, work))
    assert code == 5, text
    assert "No space left" in text
    assert names(small_disk) == ["fill"]


def test_a_full_disk_for_temporary_files_is_said_to_be_that(work: Path, small_disk: Path) -> None:
    (work.parent / "tmp").symlink_to(small_disk)
    code, text = finish(start(["simplify", "m.onnx", "--eval", "data.npz"], work))
    assert code == 5, text
    assert "No space left" in text
    assert "TMPDIR" in text or "tmp" in text
    assert names(work) == ["data.npz", "m.onnx"]


def test_a_read_only_folder_is_exit_code_5(work: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for words in (
        ["simplify", "m.onnx", "-o", small_disk / "o.onnx"],
        ["simplify", "m.onnx", "-o", work / "o.onnx", "--report", small_disk / "r.md"],
    ):
        code, text = finish(start(words, work))
        assert code == 5, text
        assert "Read-only" in text


def test_a_file_larger_than_the_process_may_write_is_exit_code_5(work: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    program = "import sys; from onnxcomp.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "simplify", "m.onnx", "-o", "o.onnx"],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        preexec_fn=limited,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert "too large" in done.stderr
    assert names(work) == ["data.npz", "m.onnx"]


def test_a_report_does_not_replace_another_file_of_the_same_command(work: Path) -> None:
    code, text = finish(start(["simplify", "m.onnx", "-o", "x.json", "--report", "x.json"], work))
    assert code == 5, text
    assert "another file of this command" in text
    assert names(work) == ["data.npz", "m.onnx"]


def test_the_time_limit_ends_a_job_whose_model_never_ends(work: Path) -> None:
    """A loop of 2⁶² turns, which only the child process meets."""
    text = """<ir_version: 10, opset_import: ["": 21]> g (float[1] x) => (float[1] y)
        <int64 turns = {4611686018427387904}, bool on = {1}> {
        y = Loop (turns, on, x) <body = b (int64 i, bool c, float[1] s) => (bool d, float[1] t) {
            d = Identity (c) t = Sin (s) }> }"""
    (work / "m.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    began = time.monotonic()
    code, said = finish(start(["optimize", "m.onnx", "--time-limit", "6"], work))
    assert code == 6, said
    assert time.monotonic() - began < 30
    assert names(work) == ["data.npz", "m.onnx"]
