"""A model in a form that ONNX Runtime loads: bytes of one protobuf, or a file with its weights beside it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp.errors import ModelError

if TYPE_CHECKING:  # the child process starts without onnx-ir
    import onnx_ir as ir

TemporaryFolder = tempfile.TemporaryDirectory[str]


def loadable(model: ir.Model | bytes | Path) -> tuple[bytes | str, TemporaryFolder | None]:
    """What the constructor of a session takes, and the folder that must outlive the session, if there is one."""
    if isinstance(model, bytes):
        return model, None
    if isinstance(model, Path):
        return str(_existing(model)), None
    from onnxcomp.model.save import INLINE_LIMIT, serialize, weight_bytes

    if weight_bytes(model) <= INLINE_LIMIT:
        return serialize(model), None
    folder = temporary_folder()
    try:
        return str(write_model(model, Path(folder.name))), folder
    except BaseException:
        folder.cleanup()
        raise


def write_model(model: ir.Model | bytes | Path, folder: Path) -> Path:
    """The model as a file: itself when it is one, else written into `folder`; absolute."""
    if isinstance(model, Path):
        return _existing(model)
    path = folder.absolute() / "model.onnx"
    if isinstance(model, bytes):
        path.write_bytes(model)
        return path
    from onnxcomp.model.save import save_model

    save_model(model, path)
    return path


def temporary_folder() -> TemporaryFolder:
    """A private folder; its prefix is what `messages.clean` takes out of error messages."""
    # Windows keeps mapped files open: leave them to the system's own cleaning.
    return tempfile.TemporaryDirectory(prefix="onnxcomp-", ignore_cleanup_errors=True)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ModelError(f"no model file at {path}")
    return path.absolute()
