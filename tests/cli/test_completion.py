"""Shell completion: scripts that their shells accept, and words that are there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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
    monkeypatch.setenv("COMP_WORDS", " ".join(["onnxcomp", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    result = onnxcomp()
    assert result.code == 0, result.err
    assert not result.err
    return result.out.splitlines()


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


def test_bash_itself_completes_a_verb(tmp_path: Path, onnxcomp: Command) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    program = tmp_path / "onnxcomp"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m onnxcomp.cli.main "$@"\n')
    program.chmod(0o755)
    script = onnxcomp("completion", "bash").out
    asked = 'COMP_WORDS=(onnxcomp quan); COMP_CWORD=1; _onnxcomp_completion onnxcomp; echo "${COMPREPLY[@]}"'
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(["bash", "-c", f"{script}\n{asked}"], capture_output=True, text=True, env=environment)
    assert result.stdout.split() == ["quantize"], result.stderr


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
        (["optimize", "m.onnx", "--recipe", "sm"], ["file,sm", "plain,smallest"]),
        (["optimize", "m.onnx", "--calibration", "im"], ["file,im", "plain,images:"]),
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
    assert completed(onnxcomp, monkeypatch, "optimize", "mod") == ["file,mod"]


def test_names_that_are_known_without_imports_are_the_real_ones() -> None:
    assert set(names.METRICS) == set(METRICS)
    assert set(names.recipes()) == set(shipped())
    assert names.targets() == ["auto", *TARGETS]


def test_completion_imports_nothing_heavy() -> None:
    heavy = ("numpy", "onnx", "onnx_ir", "onnxruntime", "pydantic", "jinja2")
    code = f"from onnxcomp.cli.main import run; run([]); import sys; print([m for m in {heavy} if m in sys.modules])"
    words = "onnxcomp optimize m.onnx --target "
    environment = {**os.environ, VARIABLE: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "4"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout.splitlines()[-1] == "[]", result.stdout + result.stderr
    assert "plain,cpu-vnni" in result.stdout
