"""Where a result goes, and the saving of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp.errors import WriteError
from onnxcomp.report.text import encodable

if TYPE_CHECKING:
    from onnxcomp.driver.result import Result
    from onnxcomp.report.structures import Report


def output_path(model: Path, output: Path | None, force: bool) -> Path:
    """The path of the result, refused before any work is done if it can't be written.

    Raises:
        WriteError: It is the input itself, exists without --force, is a folder, or lies in no folder.
    """
    path = output if output is not None else model.parent / f"{model.stem}.opt.onnx"
    if path.exists() and model.exists() and path.samefile(model):
        raise WriteError(
            f"the output {path} is the input itself", hint="choose another path with -o; the input is never overwritten"
        )
    if path.is_dir():
        raise WriteError(f"the output {path} is a folder", hint="name a file: -o FOLDER/model.onnx")
    if path.exists() and not path.is_file():
        raise WriteError(f"the output {path} is not a regular file", hint="choose another path with -o")
    if path.exists() and not force:
        raise WriteError(f"the output {path} exists", hint="overwrite it with --force, or choose another path with -o")
    if not path.absolute().parent.is_dir():
        raise WriteError(f"the folder of the output {path} does not exist", hint="make it first")
    return path


def save(result: Result, path: Path, force: bool) -> Report:
    """Writes the result and completes its report with the path, size and digest of what was written."""
    saved = result.save(path, overwrite=force)
    written = {"name": encodable(path.name), "bytes": saved.bytes, "sha256": saved.sha256}
    facts = result.report.result.model_copy(update=written)
    return result.report.model_copy(update={"result": facts, "result_path": encodable(str(path))})
