"""The command line in this process, and a folder with a model, its data and a secret beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from haste import hasten

from onnxcomp.cli.main import run

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def onnxcomp(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line; gives the exit code and what it wrote, stdout before stderr."""
    hasten(monkeypatch)

    def command(*words: object) -> tuple[int, str]:
        capfd.readouterr()
        code = run([str(word) for word in words])
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for the model of an attacker; around it lies what is not theirs."""
    inside = tmp_path / "model"
    inside.mkdir()
    return inside
