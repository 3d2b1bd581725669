"""Names that users type, for completion and help: known without importing what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.resources import files
from typing import Any

import rich_click as click
from click.shell_completion import CompletionItem

METRICS = ("top1", "top5", "mse", "psnr", "spearman")
NOT_FILES = "random:"
KINDS = ("npz:", "images:", "py:", NOT_FILES)
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def recipes() -> list[str]:
    """Shipped recipes."""
    return sorted(_stems(files("onnxcomp") / "recipes", ".toml"))


def schemas() -> list[str]:
    """What there are JSON Schemas of; recipes first."""
    found = _stems(files("onnxcomp") / "recipes" / "schemas", ".json")
    return sorted(found, key=lambda name: (name != "recipe", name))


def schema_text(name: str) -> str:
    """A shipped JSON Schema."""
    return (files("onnxcomp") / "recipes" / "schemas" / f"{name}.json").read_text(encoding="utf-8")


def targets() -> list[str]:
    """What --target takes."""
    from onnxcomp.ops.targets import TARGETS

    return ["auto", *TARGETS]


def completing(words: Callable[[], Iterable[str]], *, paths: bool = False) -> Completer:
    """A completion from words, and from files as well where `paths`: also after a word that ends in a colon."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        known = list(words())
        found = [CompletionItem(word) for word in known if word.startswith(incomplete)]
        before = next((w for w in known if w.endswith(":") and incomplete.startswith(w) and w != NOT_FILES), "")
        return [CompletionItem(incomplete.removeprefix(before), type="file"), *found] if paths else found

    return complete


def _stems(folder: Any, suffix: str) -> list[str]:
    return [f.name.removesuffix(suffix) for f in folder.iterdir() if f.name.endswith(suffix)]
