"""Where a result goes, and what the verbs that write one have in common."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxcomp.cli import options
from onnxcomp.cli.console import progress
from onnxcomp.cli.show import check_reports, show, show_plan
from onnxcomp.errors import WriteError
from onnxcomp.report.text import encodable

if TYPE_CHECKING:
    from onnxcomp.driver.result import Result
    from onnxcomp.report.structures import Report


def produce(verb: str, model: Path, output: Path | None, force: bool, values: dict[str, Any], **more: Any) -> None:
    """Runs the job of a verb that writes a model, saves the result and shows the report.

    Args:
        verb: Name of the function in `onnxcomp.driver.jobs`, imported when everything that can be refused was.
        values: Parsed options; `more`: the verb's own arguments.
    """
    dry_run = bool(more.get("dry_run"))
    path = output_path(model, output, force or (dry_run and output is None))
    check_reports({**values, "output": path})
    shared = options.shared(values)
    job = getattr(import_module("onnxcomp.driver.jobs"), verb)
    with progress(values) as callback:
        result = job(model, **more, **shared, progress=callback)
        if not dry_run:
            report = save(result, path, force)
    if dry_run:
        show_plan(result, output, values)
    else:
        show(report, values)


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
    if os.path.lexists(path) and not force:  # a link to nothing too
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
