"""The SPEC of `--calibration` and `--eval`: a path, or `KIND:PATH?key=value&…`, and which reader opens it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnxcomp.calibration.arrays import npz_file, npz_folder
from onnxcomp.calibration.images import image_files, image_folder
from onnxcomp.calibration.options import Options, located, nearest, positive
from onnxcomp.calibration.random_feeds import Shapes, random_reader
from onnxcomp.calibration.readers import Reader
from onnxcomp.calibration.script import script
from onnxcomp.calibration.testdata import PATTERN, onnx_test_data
from onnxcomp.errors import DataError, UsageError
from onnxcomp.model.signature import Signature


@dataclass(frozen=True)
class Spec:
    """A SPEC in its parts.

    Args:
        kind: A key of `KINDS`, or empty for a plain path.
        path: As typed; for `random` the number of feeds.
        options: What followed the question mark.
    """

    kind: str
    path: str
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class Context:
    """What a reader may need besides its SPEC: the model's signature, and what random feeds are drawn from."""

    signature: Signature
    shapes: Shapes
    limits: Mapping[str, int]
    seed: int


@dataclass(frozen=True)
class Kind:
    """How SPECs of one kind are opened, and the options that they may have."""

    open: Callable[[Spec, Context], Reader]
    options: frozenset[str] = frozenset()


def _npz(spec: Spec, context: Context) -> Reader:
    path = _existing(spec.path)
    return (npz_folder if path.is_dir() else npz_file)(path, spec.options, context.signature)


def _images(spec: Spec, context: Context) -> Reader:
    path = _existing(spec.path)
    if not path.is_dir():
        raise DataError(f"{path.name} is not a folder of images")
    return image_folder(path, spec.options, context.signature)


def _py(spec: Spec, context: Context) -> Reader:
    return script(spec.path, context.signature)


def _random(spec: Spec, context: Context) -> Reader:
    count = positive(spec.path, "random:")
    return random_reader(context.signature, count, shapes=context.shapes, limits=context.limits, seed=context.seed)


_PIXELS = frozenset({"scale", "mean", "std", "layout", "n"})
KINDS: Mapping[str, Kind] = {
    "npz": Kind(_npz, _PIXELS | {"map", "y"}),
    "images": Kind(_images, _PIXELS | {"resize", "crop", "color", "labels", "interpolation", "input"}),
    "py": Kind(_py),
    "random": Kind(_random),
}


def parse_spec(text: str) -> Spec:
    """Splits a SPEC. One letter before the colon is a Windows drive.

    >>> parse_spec("npz:train.npz?n=256").path
    'train.npz'
    >>> parse_spec("C:/data/train.npz").kind
    ''

    Raises:
        UsageError: An unknown kind or option, an option twice or without a value.
    """
    match = re.match(r"([A-Za-z][\w+-]+):(.*)", text, re.DOTALL)
    if match is None:
        return Spec("", text)
    kind, rest = match.groups()
    if kind not in KINDS:
        raise UsageError(
            f"{text!r}: no kind of data {kind!r}", hint=f"{nearest(kind, KINDS)} A path with a colon: begin it with ./"
        )
    path, mark, tail = rest.rpartition("?")
    values: dict[str, str] = {}
    for item in tail.split("&") if mark else ():
        key, _, value = item.partition("=")
        if key not in KINDS[kind].options:
            raise UsageError(f"{text!r}: {kind} has no option {key!r}", hint=nearest(key, KINDS[kind].options))
        if not value or key in values:
            raise UsageError(f"{text!r}: option {key!r} {'is given twice' if value else 'has no value'}")
        values[key] = value
    return Spec(kind, path if mark else rest, Options(values))


def open_spec(
    text: str,
    signature: Signature,
    *,
    shapes: Shapes | None = None,
    limits: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Reader:
    """Opens a SPEC as a reader of feeds for the model; `checked` holds each feed against it afterwards.

    Args:
        text: The SPEC.
        signature: Of the model.
        shapes, limits, seed: For `random:`, as `random_reader` has them.

    Raises:
        UsageError: A SPEC that can't be understood, or that doesn't fit the model.
        DataError: Data that isn't there or can't be used.
        UnavailableError: A package that the kind needs is not installed.
    """
    spec = parse_spec(text)
    context = Context(signature, shapes or {}, limits or {}, seed)
    return KINDS[spec.kind].open(spec, context) if spec.kind else _open_plain(spec, context)


def _open_plain(spec: Spec, context: Context) -> Reader:
    path = _existing(spec.path)
    if path.suffix == ".py":
        raise UsageError(f"{spec.path}: Python code runs only when asked for", hint=f"Ask: py:{spec.path}:NAME")
    if path.suffix == ".npz" or (path.is_dir() and any(path.glob("*.npz"))):
        return _npz(spec, context)
    if not path.is_dir():
        raise UsageError(f"{spec.path}: {path.suffix or 'such'} files are not read", hint=f"Kinds: {', '.join(KINDS)}.")
    if any(path.glob(PATTERN)):
        return onnx_test_data(path, context.signature)
    if image_files(path, recursive=True):
        raise UsageError(
            f"{spec.path}: a folder of images", hint=f"Say so: images:{spec.path}?mean=imagenet&std=imagenet"
        )
    raise DataError(f"{spec.path}: nothing in it to read", hint=f"Wanted: .npz files, or folders {PATTERN}.")


def _existing(text: str) -> Path:
    path = located(text)
    if path is not None:
        return path
    bare, mark, _ = text.rpartition("?")
    if mark and located(bare):
        raise UsageError(f"{text}: options need a kind in front", hint=f"Write npz:{text} or images:{text}")
    if text in KINDS:
        raise DataError(f"{text}: no such file", hint=f"As a kind of data it takes a colon: {text}:…")
    raise DataError(f"{text or 'an empty path'}: no such file or folder")
