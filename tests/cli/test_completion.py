"""Shell completion: scripts that their shells accept, and words that are there."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Command

from onnxcomp.cli import names
from onnxcomp.cli.completion import INSTALL, VARIABLE
from onnxcomp.cli.main import VERBS
from onnxcomp.evaluate.metrics import METRICS
from onnxcomp.ops.targets import TARGETS
from onnxcomp.recipe import shipped

ROOT = Path(__file__).parents[2]


def completed(onnxcomp: Command, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """What bash would be offered for the last of the words."""
    monkeypatch.setenv(VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_LINE", " ".join(["onnxcomp", *words]))
    result = onnxcomp()
    assert result.code == 0, result.err
    assert not result.err
    typed, *offered = result.out.split("\n")[:-1]
    assert typed == f"word,{words[-1]}"
    return offered


@pytest.mark.parametrize("shell", INSTALL)
def test_the_script_says_how_to_install_it_in_one_line_at_its_top(onnxcomp: Command, shell: str) -> None:
    result = onnxcomp("completion", shell)
    assert result.code == 0
    assert not result.err
    top = result.out.splitlines()[:2]
    assert sum(line.startswith("# install: ") for line in top) == 1
    assert shell != "zsh" or top[0] == "#compdef onnxcomp"
    assert f"{VARIABLE}={shell}_complete" in result.out


@pytest.mark.parametrize("shell", INSTALL)
def test_the_shell_reads_its_script(onnxcomp: Command, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    script = onnxcomp("completion", shell).out
    result = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


START = {
    "bash": ["--noprofile", "--rcfile", "rc", "-i"],
    "zsh": ["-d", "-i"],
    "fish": ["--no-config", "-C", "source rc", "-i"],
}
PROMPT = {
    "bash": "PS1=READY",
    "zsh": "PROMPT=READY; unsetopt zle_bracketed_paste",
    "fish": "function fish_prompt; echo READY; end",
}
TERMINAL = {b"\x1b[c": b"\x1b[?62;c", b"\x1b[0c": b"\x1b[?62;c", b"\x1b[6n": b"\x1b[1;1R"}
"""What a terminal answers when a shell asks for its kind, and where its cursor is."""


class Interactive:
    """A shell at a terminal, in a folder of its own, where `onnxcomp` completes and notes its arguments."""

    def __init__(self, shell: str, script: str, folder: Path) -> None:
        (folder / "rc").write_text(f"{script}\n{PROMPT[shell]}\n")
        (folder / ".zshrc").write_text((folder / "rc").read_text())
        program = folder / "bin" / "onnxcomp"
        program.parent.mkdir()
        complete = f'exec "{sys.executable}" -m onnxcomp.cli.main'
        note = "{ printf '[%s]' \"$@\"; echo; } >> called"
        program.write_text(f'#!/bin/sh\nif [ -n "${VARIABLE}" ]; then {complete}; fi\n{note}\n')
        program.chmod(0o755)
        self.called = folder / "called"
        self.lines = 0
        search = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        told = {"PATH": search, "PYTHONPATH": str(ROOT), "ZDOTDIR": str(folder), "HOME": str(folder), "TERM": "xterm"}
        path = shutil.which(shell)
        assert path is not None
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            os.execve(path, [shell, *START[shell]], {**os.environ, **told})
        self._until(lambda seen: b"READY" in seen)

    def completes(self, line: str) -> str:
        """The words of the command after TAB and RETURN, each in brackets."""
        os.write(self.terminal, f"{line}\t\r".encode())
        self.lines += 1
        self._until(lambda _: self.called.exists() and self.called.read_text().count("\n") == self.lines)
        return self.called.read_text().splitlines()[-1]

    def end(self) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.terminal)

    def _until(self, done: Callable[[bytes], bool], limit: float = 60.0) -> None:
        seen, end = b"", time.monotonic() + limit
        while not done(seen):
            assert time.monotonic() < end, seen.decode(errors="replace")
            if select.select([self.terminal], [], [], 0.05)[0]:
                piece = os.read(self.terminal, 65536)
                seen += piece
                for question, answer in TERMINAL.items():
                    if question in piece:
                        os.write(self.terminal, answer)


@pytest.mark.parametrize("shell", INSTALL)
def test_the_shell_itself_completes_verbs_options_values_and_files(
    tmp_path: Path, onnxcomp: Command, shell: str
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / "my model.onnx").touch()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "one.png").touch()
    at_work = Interactive(shell, onnxcomp("completion", shell).out, tmp_path)
    try:
        assert at_work.completes("onnxcomp opt") == "[optimize]"
        assert at_work.completes("onnxcomp optimize my") == "[optimize][my model.onnx]"
        assert at_work.completes("onnxcomp quantize m --mod") == "[quantize][m][--mode]"
        assert at_work.completes("onnxcomp quantize m --mode we") == "[quantize][m][--mode][weight-only]"
        assert at_work.completes("onnxcomp quantize m --mode=we") == "[quantize][m][--mode=weight-only]"
        assert at_work.completes("onnxcomp quantize 'my model.onnx' --mode we") == (
            "[quantize][my model.onnx][--mode][weight-only]"
        )
        spec = "images:pictures/one.png"
        assert at_work.completes("onnxcomp optimize m --eval images:pictures/o") == f"[optimize][m][--eval][{spec}]"
        assert at_work.completes("onnxcomp optimize m --eval=images:pictures/o") == f"[optimize][m][--eval={spec}]"
        # No blank after what is not a whole word yet.
        assert at_work.completes("onnxcomp optimize m --eval random") == "[optimize][m][--eval][random:]"
    finally:
        at_work.end()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([""], [f"plain,{verb}" for verb in VERBS]),
        (["qua"], ["plain,quantize"]),
        (["optimize", "--cali"], ["plain,--calibration"]),
        (["optimize", "m.onnx", "--goal", ""], ["plain,balanced", "plain,latency", "plain,size"]),
        (["quantize", "m.onnx", "--mode", "w"], ["plain,weight-only"]),
        (["optimize", "m.onnx", "--target", "cpu"], ["plain,cpu-vnni", "plain,cpu-avx2"]),
        (["optimize", "m.onnx", "--metric", "top"], ["plain,top1", "plain,top5"]),
        (["optimize", "m.onnx", "--recipe", "sm"], ["file,", "plain,smallest"]),
        (["optimize", "m.onnx", "--calibration", "im"], ["file,", "plain,images:"]),
        (["optimize", "m.onnx", "--calibration", "images:fo"], ["file,images:"]),
        (["optimize", "m.onnx", "--calibration", "random:1"], ["file,"]),
        (["optimize", "m.onnx", "--calibration=npz:da"], ["file,--calibration=npz:"]),
        (["quantize", "m.onnx", "--mode=w"], ["plain,--mode=weight-only"]),
        (["recipe", "sh"], ["plain,show"]),
        (["recipe", "show", "pr"], ["plain,prune-int8"]),
        (["recipe", "schema", "r"], ["plain,recipe", "plain,report"]),
        (["completion", ""], [f"plain,{shell}" for shell in INSTALL]),
    ],
    ids=" ".join,
)
def test_words_that_are_offered(
    onnxcomp: Command, monkeypatch: pytest.MonkeyPatch, words: list[str], wanted: list[str]
) -> None:
    assert completed(onnxcomp, monkeypatch, *words) == wanted


def test_a_word_that_is_no_verb_is_no_error_while_completing(
    onnxcomp: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    completed(onnxcomp, monkeypatch, "nonsense", "")  # asserts that nothing was said


def test_models_are_completed_as_files(onnxcomp: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed(onnxcomp, monkeypatch, "optimize", "mod") == ["file,"]


def test_names_that_are_known_without_imports_are_the_real_ones() -> None:
    assert set(names.METRICS) == set(METRICS)
    assert set(names.recipes()) == set(shipped())
    assert names.targets() == ["auto", *TARGETS]


def test_completion_imports_nothing_heavy() -> None:
    heavy = ("numpy", "onnx", "onnx_ir", "onnxruntime", "pydantic", "jinja2")
    code = f"from onnxcomp.cli.main import run; run([]); import sys; print([m for m in {heavy} if m in sys.modules])"
    line = "onnxcomp optimize m.onnx --target "
    environment = {**os.environ, VARIABLE: "bash_complete", "COMP_LINE": line}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout.splitlines()[-1] == "[]", result.stdout + result.stderr
    assert "plain,cpu-vnni" in result.stdout
