"""A reader from a Python file that the user named; its code runs, and what it raises is said with the line."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from onnxcomp.calibration.adapters import adapt
from onnxcomp.calibration.options import located, nearest
from onnxcomp.calibration.readers import Feed, Reader
from onnxcomp.errors import DataError, OnnxcompError, UsageError
from onnxcomp.model.signature import Signature


def script(target: str, signature: Signature) -> Reader:
    """Runs `reader.py:name`, `name` being an iterable of feeds or a callable without arguments that gives one.

    A function that gives a generator is called again for each iteration. A `labels` attribute and `len()` are honoured.

    Raises:
        UsageError: No name given, or the file has none such.
        DataError: The file can't be read, its code raises (also later, while iterating), or it gives no feeds.
    """
    file, _, name = target.rpartition(":")
    if not file or not name.isidentifier():
        raise UsageError(f"py:{target} names no object of the file", hint=f"Name it: py:{target}:reader")
    path = located(file)
    if path is None:
        raise DataError(f"{file}: no such file")
    with _blamed(path):
        module = _executed(path)
        if not hasattr(module, name):
            raise UsageError(f"{path.name} has no {name!r}", hint=nearest(name, _public(module)))
        reader = adapt(_source(getattr(module, name)), signature, name=f"py:{path.name}:{name}")

    def open_() -> Iterator[Feed]:
        with _blamed(path):
            yield from reader.open()

    return replace(reader, open=open_)


def load_function(target: str) -> Callable[..., Any]:
    """The function `FILE.py:name`, as a metric; what it raises when called is said with the line.

    Raises:
        UsageError: No name given, the file has none such, or it can't be called.
        DataError: The file can't be read, or its code raises.
    """
    path, name, found = _named_object(target)
    if not callable(found):
        raise UsageError(f"{name!r} of {path.name} is no function")
    function: Callable[..., Any] = found
    return function


def _named_object(target: str) -> tuple[Path, str, Any]:
    """Runs the file of `FILE.py:name` and gives (path, name, object)."""
    file, _, name = target.rpartition(":")
    if not file or not name.isidentifier():
        raise UsageError(f"py:{target} names no object of the file", hint=f"Name it: py:{target}:reader")
    path = Path(file).expanduser()
    with _blamed(path):
        module = _executed(path)
    if not hasattr(module, name):
        raise UsageError(f"{path.name} has no {name!r}", hint=nearest(name, _public(module)))
    return path, name, getattr(module, name)


class _Again:
    """The generators of a function as one re-iterable."""

    def __init__(self, function: Callable[[], Iterator[Any]]) -> None:
        self.function = function
        self.labels = getattr(function, "labels", None)

    def __iter__(self) -> Iterator[Any]:
        return self.function()


def _source(found: Any) -> Any:
    if (
        isinstance(found, Iterable)
        or (hasattr(found, "get_next") and not isinstance(found, type))
        or not callable(found)
    ):
        return found
    made = found()
    one_shot = isinstance(made, Iterator) and not hasattr(made, "get_next")
    return _Again(found) if one_shot else made


def _executed(path: Path) -> ModuleType:
    """The module of the file. No bytecode is written beside it; its neighbours can be imported, as in `python FILE`."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path.name}: can't be read: {error.strerror or error}") from error
    module = ModuleType(f"_onnxcomp_reader_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and the like look their module up
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    finally:
        sys.path.remove(folder)
    return module


def _public(module: ModuleType) -> list[str]:
    return [name for name in vars(module) if not name.startswith("_")]


@contextmanager
def _blamed(path: Path) -> Iterator[None]:
    """What the code in `path` raises, as a DataError with the last line of that file on the way."""
    try:
        yield
    except (OnnxcompError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        if isinstance(error, SyntaxError) and error.filename == str(path):
            lines.append(error.lineno)
        where = f"{path.name}, line {lines[-1]}" if lines else path.name
        raise DataError(
            f"{where}: {type(error).__name__}: {error}", hint="The error is in the reader's own code."
        ) from error
