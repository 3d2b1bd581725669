from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from onnxcomp.errors import DataError, InternalError, LimitError, ModelError
from onnxcomp.model.children import child_environment
from onnxcomp.runtime import child
from onnxcomp.runtime.child import Limits, probe
from onnxcomp.runtime.host import Host
from onnxcomp.runtime.session import SessionConfig, open_session

X = np.linspace(-2, 2, 12, dtype=np.float32).reshape(4, 3)
MLP = """g (float[N,3] x) => (float[N,2] y, float[N,3] s)
    <float[3,2] w = {0.1, -0.2, 0.3, 0.4, -0.5, 0.6}> { s = Sigmoid(x) y = MatMul(s, w) }"""
ENDLESS = """g (float[1] x) => (float[1] y) {
    n = Constant<value_int=9223372036854775807>()
    c = Constant<value: tensor = bool {1}>()
    y = Loop<body = b (int64 i, bool go, float[1] v) => (bool on, float[1] w) { on = Identity(go) w = Sin(v) }>(n, c, x)
}"""
ONE = {"x": np.ones(1, np.float32)}
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def child_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Replaces what the child process does by a script."""

    def replace(script: str) -> None:
        (tmp_path / "stand_in.py").write_text(script)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(child, "_CHILD", "stand_in")

    return replace


def test_a_probe_gives_the_outputs_of_a_session_in_this_process(serialized: Callable[[str], bytes]) -> None:
    model = serialized(MLP)
    result = probe(model, feed={"x": X})
    with open_session(model) as session:
        here = session.run({"x": X})
    assert result.outputs is not None
    for theirs, ours in zip(result.outputs, here, strict=True):
        np.testing.assert_array_equal(theirs, ours)
    assert result.effective_providers == ("CPUExecutionProvider",)
    assert min(result.load_seconds, result.run_seconds) > 0
    assert result.peak_bytes > 1 << 20 or sys.platform != "linux"


def test_a_probe_without_a_feed_only_loads(relu: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.onnx").write_bytes(relu)
    monkeypatch.chdir(tmp_path)
    result = probe(Path("m.onnx"), config=SessionConfig(optimized_path=Path("optimized.onnx")))
    assert (result.outputs, result.run_seconds) == (None, 0)
    assert (tmp_path / "optimized.onnx").is_file()


def test_outputs_that_no_npy_file_holds_are_left_out(serialized: Callable[[str], bytes]) -> None:
    model = serialized("g (float[N,3] x) => (seq(float[N,3]) y) { y = SequenceConstruct(x) }")
    assert probe(model, feed={"x": X}).outputs is None


@pytest.mark.parametrize("array", [np.array(["a", None], dtype=object), np.zeros(2, ml_dtypes.bfloat16)])
def test_a_feed_that_no_npy_file_holds_is_refused(relu: bytes, array: np.ndarray) -> None:
    with pytest.raises(DataError, match="child process"):
        probe(relu, feed={"x": array})


def test_garbage_is_an_error_of_the_model_and_names_no_temporary_path() -> None:
    with pytest.raises(ModelError, match="Protobuf parsing failed") as caught:
        probe(b"garbage")
    assert "/" not in caught.value.message
    assert caught.value.hint is not None


def test_a_feed_that_does_not_fit_is_an_error_of_the_data(relu: bytes) -> None:
    with pytest.raises(DataError, match="z"):
        probe(relu, feed={"z": X})


def test_a_model_that_never_ends_is_stopped(serialized: Callable[[str], bytes]) -> None:
    with pytest.raises(LimitError, match=r"0\.5 s") as caught:
        probe(serialized(ENDLESS), feed=ONE, limits=Limits(seconds=0.5))
    assert caught.value.exit_code == 6


@linux_only
def test_a_child_limits_its_own_processor_time_in_case_the_parent_can_not() -> None:
    script = (
        "from pathlib import Path; from onnxcomp.runtime.child_main import limit\n"
        "from onnxcomp.runtime.job import Job; from onnxcomp.runtime.session import SessionConfig\n"
        "limit(Job(model=Path(), config=SessionConfig(), inputs=None, memory_bytes=None, cpu_seconds=2, parent=0))\n"
        "while True: pass"
    )
    child = subprocess.run([sys.executable, "-c", script], env=child_environment(dict(os.environ)))
    assert child.returncode in (-signal.SIGKILL, -signal.SIGXCPU)


@linux_only
def test_an_output_of_64_gib_hits_the_limit_and_leaves_us_alive(serialized: Callable[[str], bytes]) -> None:
    model = serialized("g (int64[2] s) => (float[N,M] y) { y = ConstantOfShape(s) }")
    shape = np.array([1 << 17, 1 << 17], np.int64)
    with pytest.raises(LimitError, match="memory"):
        probe(model, feed={"s": shape}, limits=Limits(memory_bytes=8 << 30))


@linux_only
def test_a_limit_too_small_to_start_in_is_still_a_limit_error(relu: bytes) -> None:
    with pytest.raises(LimitError):
        probe(relu, feed={"x": X}, limits=Limits(memory_bytes=64 << 20))


def test_the_default_memory_limit_is_nine_tenths_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for memory, limit in ((1000, 900), (0, None)):
        monkeypatch.setattr(child, "detect_host", lambda memory=memory: Host("", "", frozenset(), 1, memory))
        assert Limits().resolved_memory() == limit


def test_no_secret_reaches_the_child(
    relu: bytes, child_that: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    child_that(
        f"import json, os, sys; json.dump([dict(os.environ), sys.stdin.read()], open({str(tmp_path / 'seen')!r}, 'w'))"
    )
    with pytest.raises(InternalError, match="without a result"):
        probe(relu)
    environment, stdin = json.loads((tmp_path / "seen").read_text())
    assert "secret" not in environment.values()
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert stdin == ""


def test_telemetry_stays_off_in_the_child_whatever_the_parent_had_set() -> None:
    assert child_environment({"ORT_DISABLE_TELEMETRY": "0"})["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize(
    ("last_words", "sign", "error"),
    [
        ("", "SIGSEGV", ModelError),
        ("", "SIGABRT", ModelError),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "SIGABRT", LimitError),
        ("", "SIGKILL", LimitError),
    ],
)
def test_a_child_killed_by_a_signal_says_which(
    last_words: str, sign: str, error: type[Exception], relu: bytes, child_that: Callable[[str], None]
) -> None:
    child_that(f"import os, signal; os.write(2, {last_words.encode()!r}); os.kill(os.getpid(), signal.{sign})")
    with pytest.raises(error, match=sign):
        probe(relu)


def test_what_a_broken_child_writes_is_never_unpickled(relu: bytes, child_that: Callable[[str], None]) -> None:
    child_that(
        "import sys, pathlib, numpy as np\nd = pathlib.Path(sys.argv[1])\n"
        "np.save(d / 'output-0.npy', np.array([{}], dtype=object), allow_pickle=True)\n"
        "(d / 'outcome.json').write_text('{\"outputs\": 1}')"
    )
    with pytest.raises(InternalError, match="outputs that can't be read"):
        probe(relu, feed={"x": X})


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int) -> bool:
    """Waits for another process, that is not ours to reap; generous, as the machine may be busy."""
    deadline = time.monotonic() + 60
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_running(pid)


@linux_only
def test_a_timeout_kills_the_children_of_the_child_too(
    relu: bytes, child_that: Callable[[str], None], tmp_path: Path
) -> None:
    seen = tmp_path / "pid"
    child_that(
        "import pathlib, subprocess, time\n"
        f"pathlib.Path({str(seen)!r}).write_text(str(subprocess.Popen(['sleep', '1000']).pid))\ntime.sleep(1000)"
    )
    with pytest.raises(LimitError):
        probe(relu, limits=Limits(seconds=5))
    assert ends(int(seen.read_text()))


@linux_only
def test_an_interrupt_kills_the_child(serialized: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    wait = subprocess.Popen.wait

    def interrupted(self: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if timeout is None:
            return wait(self)
        started.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        probe(serialized(ENDLESS), feed=ONE)
    assert started[0].returncode == -signal.SIGKILL


@linux_only
def test_the_child_does_not_outlive_a_parent_that_is_killed(serialized: Callable[[str], bytes], tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(serialized(ENDLESS))
    script = (
        "import sys, pathlib, numpy as np; from onnxcomp.runtime.child import probe; "
        "probe(pathlib.Path(sys.argv[1]), feed={'x': np.ones(1, np.float32)})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "m.onnx")], env=environment)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    deadline = time.monotonic() + 60
    while not children.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    pid = int(children.read_text())
    parent.kill()
    parent.wait()
    assert ends(pid)
