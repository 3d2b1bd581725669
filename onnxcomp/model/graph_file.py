"""Reads and parses a graph file, or says what is there instead."""

from __future__ import annotations

import difflib
import os
import stat
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from onnxcomp.errors import ModelError
from onnxcomp.model import sniff
from onnxcomp.report.text import printable


def read(path: Path, limit: int) -> bytes:
    """The content of a graph file.

    Args:
        path: Absolute.
        limit: Most bytes that are read.

    Raises:
        ModelError: Not there, not a regular file, empty, larger than `limit`, or not readable.
    """
    shown = printable(path, 200)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            inside = sorted(p.name for p in path.glob("*.onnx"))
            raise ModelError(f"{shown} is a folder", hint=_suggest(inside) or "Give the path of an .onnx file.")
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{shown} is not a regular file", hint="Give the path of an .onnx file.")
        if status.st_size > limit:
            raise ModelError(
                f"{shown} has {status.st_size:,} bytes; a graph file can have at most {limit:,}",
                hint="Export the model with external data, so that the weights lie beside the graph.",
            )
        with path.open("rb") as file:
            # No more than it has: Python reserves what it is asked for, and `limit` is 2 GiB.
            content = file.read(status.st_size)
    except FileNotFoundError as error:
        raise ModelError(f"there is no file {shown}", hint=_nearest(path)) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{shown} can't be read: {printable(error)}", hint="Check the path and its rights.") from error
    if not content:
        raise ModelError(f"{shown} is empty", hint="Download or export it again.")
    return content


def parse(content: bytes, name: str) -> onnx.ModelProto:
    """The protobuf in a graph file.

    Args:
        content: Of the file.
        name: Of the file, for messages; its suffix helps to tell what else it may be.

    Raises:
        ModelError: Not a protobuf, or one without a graph: says what it looks like, and what to do with that.
    """
    try:
        proto = onnx.ModelProto.FromString(content)
        reason = "it holds no graph"
    except DecodeError:
        proto = onnx.ModelProto()
        reason = "it does not parse as protobuf (other content, cut off, or nested too deeply)"
    if not proto.HasField("graph"):
        guess = sniff.identify(content[: sniff.HEAD_BYTES], os.path.splitext(name)[1])
        raise ModelError(f"{printable(name)} is {guess.what}: {reason}", hint=guess.hint)
    return proto


def _nearest(path: Path) -> str:
    try:
        names = os.listdir(path.parent)
    except OSError:
        return f"There is no folder {printable(path.parent, 200)} either."
    near = difflib.get_close_matches(path.name, names[:10_000], n=3)
    return _suggest(near or sorted(n for n in names if n.endswith(".onnx"))) or "Check the path."


def _suggest(names: list[str]) -> str:
    return f"Did you mean {' or '.join(printable(name) for name in names[:3])}?" if names else ""
