"""The one cache folder of the whole tool: small JSON files named by what they answer, safe to delete at any time.

An entry lies at `<folder>/<kind>/<first two digits>/<SHA-256 of the key>.json` and holds its key beside the value, so
that a reader can tell what it is and a foreign or damaged file is never taken for an answer. Nothing here raises for
the sake of the cache: what can't be read is asked again, what can't be written is not kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None

ENVIRONMENT = "ONNXCOMP_CACHE"
_NAME = "onnxcomp"


def default_folder() -> Path | None:
    """Where the cache lies: `ONNXCOMP_CACHE`, else the system's place for caches; None when there is no home.

    Source: XDG Base Directory Specification 0.8 (a relative `XDG_CACHE_HOME` is to be ignored).
    """
    chosen = os.environ.get(ENVIRONMENT)
    if chosen:
        return Path(chosen).expanduser().absolute()
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):
        return Path(xdg) / _NAME
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home.joinpath(*_PLACES.get(sys.platform, (".cache",)), _NAME)


_PLACES = {"darwin": ("Library", "Caches"), "win32": ("AppData", "Local")}


def content_key(key: Json) -> str:
    """SHA-256 of the canonical JSON of `key`: the order of a mapping's entries does not matter.

    >>> content_key({"a": 1, "b": [2]}) == content_key({"b": (2,), "a": 1})
    True
    """
    return hashlib.sha256(_canonical(key).encode()).hexdigest()


@dataclass(frozen=True)
class Cache:
    """Answers kept between runs.

    Args:
        folder: Where; None keeps nothing.
    """

    folder: Path | None

    @classmethod
    def default(cls) -> Cache:
        """The cache of this user."""
        return cls(default_folder())

    def get(self, kind: str, key: Json) -> Json:
        """The value stored under `key`, or None: never stored, deleted, unreadable or damaged."""
        path = self._path(kind, key)
        if path is None:
            return None
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(entry, dict) or "key" not in entry or _canonical(entry["key"]) != _canonical(key):
            return None
        value: Json = entry.get("value")
        return value

    def put(self, kind: str, key: Json, value: Json) -> None:
        """Stores `value`, replacing what was there at once (readers see the old entry or the new one, whole).

        Raises:
            ValueError: `key` or `value` holds a NaN or an infinity, which JSON does not have.
        """
        path = self._path(kind, key)
        if path is None:
            return
        text = json.dumps({"key": key, "value": value}, sort_keys=True, allow_nan=False)
        try:
            # What somebody's models look like is nobody else's business: 0o700, as XDG asks.
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, staged = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        except OSError:
            return
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(staged, path)
        except OSError:
            _remove(staged)
        except BaseException:
            _remove(staged)
            raise

    def _path(self, kind: str, key: Json) -> Path | None:
        if not kind.isidentifier():
            raise ValueError(f"{kind!r} can't name a folder of the cache")
        digest = content_key(key)
        return None if self.folder is None else self.folder / kind / digest[:2] / f"{digest}.json"


def _canonical(key: Json) -> str:
    return json.dumps(key, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
