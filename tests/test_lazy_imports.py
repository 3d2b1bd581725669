"""Importing the package, and asking for help, loads none of the heavy libraries."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "torch", "pydantic", "jinja2", "PIL")


def loaded_by(code: str) -> list[str]:
    """Which of the heavy libraries a fresh interpreter holds after `code`."""
    probe = f"{code}\nimport sys; print('LOADED', *[m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return result.stdout.splitlines()[-1].split()[1:]


def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded_by("import numpy") == ["numpy"]


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["optimize", "--help"], ["bench", "--help"], ["optmize"], []], ids=str
)
def test_help_version_and_wrong_usage_load_nothing_heavy(words: list[str]) -> None:
    assert loaded_by(f"from onnxcomp.cli.main import run; run({words!r})") == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import onnxcomp; onnxcomp.__version__") == []


def test_every_public_name_can_be_had() -> None:
    names = "import onnxcomp; names = [getattr(onnxcomp, name) for name in onnxcomp.__all__]"
    assert "torch" not in loaded_by(names)


def test_the_public_functions_are_not_shadowed_by_modules_of_the_same_name() -> None:
    code = "import onnxcomp, onnxcomp.cli.main as m; m.run(['optimize', '--help']); assert callable(onnxcomp.optimize)"
    loaded_by(code)


def test_an_unknown_name_is_an_attribute_error() -> None:
    import onnxcomp

    with pytest.raises(AttributeError, match="prnue"):
        onnxcomp.prnue  # type: ignore[attr-defined]  # noqa: B018
