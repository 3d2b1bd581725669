"""A model in a form that ONNX Runtime loads: bytes of one protobuf, or a file with its weights beside it."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp.errors import ModelError

if TYPE_CHECKING:  # the child process starts without onnx-ir
    import onnx_ir as ir


class TemporaryFolder:
    """A private folder that goes with the object, whenever an interrupt comes: `tempfile.TemporaryDirectory` leaves its
    own behind if that is while it is made or removed.

    Its prefix is what `messages.clean` takes out of error messages.
    """

    def __init__(self) -> None:
        self.name = os.path.join(tempfile.gettempdir(), f"onnxcomp-{secrets.token_hex(8)}")
        # Registered first, and called at the end of the process at the latest. Windows keeps mapped files open: those
        # are left to the system's own cleaning.
        self._remove = weakref.finalize(self, shutil.rmtree, self.name, ignore_errors=True)
        try:
            os.mkdir(self.name, 0o700)
        except FileExistsError:
            self._remove.detach()
            raise

    def __enter__(self) -> str:
        return self.name

    def __exit__(self, *exception: object) -> None:
        self.cleanup()

    def cleanup(self) -> None:
        """Removes it with all that is in it; a second call does nothing."""
        if self._remove.alive:
            shutil.rmtree(self.name, ignore_errors=True)
            self._remove.detach()


def loadable(model: ir.Model | bytes | Path) -> tuple[bytes | str, TemporaryFolder | None]:
    """What the constructor of a session takes, and the folder that must outlive the session, if there is one."""
    if isinstance(model, bytes):
        return model, None
    if isinstance(model, Path):
        return str(_existing(model)), None
    from onnxcomp.model.save import INLINE_LIMIT, serialize, weight_bytes
    from onnxcomp.ops.draws import seeded

    if weight_bytes(model) <= INLINE_LIMIT:
        with seeded(model):
            return serialize(model), None
    folder = TemporaryFolder()
    try:
        with seeded(model):
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


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ModelError(f"no model file at {path}")
    return path.absolute()
