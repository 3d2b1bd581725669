"""Texts that are written as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from onnxcomp.errors import WriteError


def write_file(path: Path, text: str, what: str) -> None:
    """Writes a text so that, whenever the machine stops, the file that was there or the new one is whole.

    Raises:
        WriteError: It can't be written; says `what` it was.
    """
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}.tmp")
    try:
        # Exclusive, so that nothing planted under this name is followed.
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise WriteError(f"the {what} {path} can't be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
