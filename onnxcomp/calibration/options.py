"""The `key=value` options of a SPEC, typed; what a user got wrong is a UsageError that names the key."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from onnxcomp.errors import UsageError


def nearest(word: str, words: Iterable[str]) -> str:
    """A hint that names the word that was probably meant, or else all of them.

    >>> nearest("lables", ["labels", "layout"])
    'Did you mean labels?'
    """
    known = sorted(words)
    close = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known) or 'none'}."


@dataclass(frozen=True)
class Options:
    """Options by key, as text; each method reads one of them as a type, or gives the default when it is absent."""

    values: Mapping[str, str] = field(default_factory=dict)

    def text(self, key: str, default: str | None = None) -> str | None:
        return self.values.get(key, default)

    def choice(self, key: str, allowed: tuple[str, ...]) -> str | None:
        value = self.text(key)
        if value is not None and value not in allowed:
            raise UsageError(f"{key}={value} is not a choice", hint=nearest(value, allowed))
        return value

    def count(self, key: str) -> int | None:
        """A whole number ≥ 1."""
        value = self.text(key)
        return None if value is None else positive(value, f"{key}=")

    def number(self, key: str) -> float | None:
        """A finite number other than zero."""
        value = self.text(key)
        if value is None:
            return None
        number = _finite(key, value)
        return number if number else _bad(key, value, "a number other than zero")

    def numbers(self, key: str, names: Mapping[str, tuple[float, ...]]) -> tuple[float, ...] | None:
        """Numbers with commas, or a name that stands for some (`imagenet`)."""
        value = self.text(key)
        if value is None:
            return None
        return names[value] if value in names else tuple(_finite(key, v or value) for v in value.split(","))

    def size(self, key: str) -> tuple[int, int] | None:
        """Height and width: `224`, or `320x192`."""
        value = self.text(key)
        if value is None:
            return None
        sides = [positive(side, f"{key}=") for side in value.split("x", 1)]
        return sides[0], sides[-1]

    def pairs(self, key: str) -> dict[str, str]:
        """`a:b,c:d` as a dict; what follows the first colon may hold colons itself (`x:input:0`)."""
        pairs: dict[str, str] = {}
        for item in filter(None, (self.text(key) or "").split(",")):
            left, _, right = item.partition(":")
            if not left or not right:
                _bad(key, item, "of the form array:input")
            if left in pairs:
                raise UsageError(f"{key}= names {left!r} twice")
            pairs[left] = right
        return pairs


def located(text: str) -> Path | None:
    """The path that a user typed, absolute so that `.` has a name; None when nothing is there, whatever the text is."""
    expanded = os.path.abspath(os.path.expanduser(text))
    return Path(expanded) if text and os.path.exists(expanded) else None


def positive(value: str, what: str) -> int:
    """`value` as a whole number ≥ 1; `what` names it in the error."""
    if not (value.isascii() and value.isdecimal() and int(value) >= 1):
        raise UsageError(f"{what}{value} is not a whole number above zero")
    return int(value)


def _finite(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        _bad(key, value, "a number")
    return number if math.isfinite(number) else _bad(key, value, "a finite number")


def _bad(key: str, value: str, wanted: str) -> NoReturn:
    raise UsageError(f"{key}={value} is not {wanted}")
