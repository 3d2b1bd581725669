"""Texts that are written as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from onnxcomp.errors import WriteError


def write_file(path: Path, text: str, what: str) -> None:
    """Writes a text atomically.

    Raises:
        WriteError: It can't be written; says `what` it was.
    """
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise WriteError(f"the {what} {path} can't be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
