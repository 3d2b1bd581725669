"""One exception tree: each class carries its exit code, each error says what, where and what to do."""

from __future__ import annotations

from typing import ClassVar

DAMAGED = "The file is damaged or was written by a faulty tool: export the model again."
"""The hint where a file breaks what ONNX defines."""


class OnnxcompError(Exception):
    """Base of every error that a user can meet.

    Args:
        message: What is wrong, and where (path, tensor, node, key).
        hint: What to do next, one sentence.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class GateError(OnnxcompError):
    """A gate that the user set is not met (exit 1)."""

    exit_code = 1


class UsageError(OnnxcompError):
    """Wrong options or arguments (exit 2)."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe that can't be read: names the path inside it."""


class PlanError(UsageError):
    """A plan that can't be read, or that belongs to another model."""


class UnavailableError(OnnxcompError):
    """A provider, extra or package that is not here (exit 3); the hint holds the line that installs it."""

    exit_code = 3


class ModelError(OnnxcompError):
    """A model that can't be used: not found, refused, invalid (exit 4)."""

    exit_code = 4


class DataError(OnnxcompError):
    """Calibration or evaluation data that can't be used (exit 4)."""

    exit_code = 4


class WriteError(OnnxcompError):
    """The result can't be written: exists, read-only, no space (exit 5)."""

    exit_code = 5


class LimitError(OnnxcompError):
    """A time or memory limit was hit (exit 6)."""

    exit_code = 6


class InternalError(OnnxcompError):
    """Our fault (exit 70)."""
