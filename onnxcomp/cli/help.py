"""How help looks: examples one to a line, exit codes as a table, no control codes where they don't belong."""

from __future__ import annotations

import os

import rich_click as click
from rich.text import Text

EXIT_CODES = (
    (0, "done, also when the original was handed back: the verdict says so"),
    (1, "a gate that you set is not met"),
    (2, "wrong usage or recipe"),
    (3, "not available here: a provider or a package"),
    (4, "a model or data can't be used: not found, refused, invalid"),
    (5, "can't write: exists, read-only, no space"),
    (6, "a time or memory limit was hit"),
    (70, "our fault"),
    (130, "interrupted"),
)

ENVIRONMENT = (
    ("NO_COLOR", "no colours, as --no-color; TERM=dumb does the same"),
    ("CI", "no moving progress bars, one line for each stage instead"),
)


def plain() -> bool:
    """Whether the environment asks for text without colours and control codes."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"


def help_config() -> click.RichHelpConfiguration:
    """What all help pages share. `force_terminal` is left to FORCE_COLOR: a CI log that is a pipe is a pipe."""
    return click.RichHelpConfiguration(
        force_terminal=None,
        color_system=None if plain() else "auto",
        max_width=100,
        show_arguments=False,
        append_metavars_help_string="{}",
    )


def examples(*lines: str) -> Text:
    """The end of a verb's help, which is what a terminal still shows after a long list of options."""
    return _section("Examples", [f"onnxcomp {line}" for line in lines])


def closing() -> Text:
    """The end of the help of the whole program."""
    return Text("\n\n").join(
        (
            examples(
                "optimize model.onnx --calibration data.npz",
                "verify model.opt.onnx --against model.onnx --eval test.npz",
                "bench model.onnx model.opt.onnx",
            ),
            _section("Exit codes", [f"{code:>3}  {meaning}" for code, meaning in EXIT_CODES]),
            _section("Environment", [f"{name:<8}  {meaning}" for name, meaning in ENVIRONMENT]),
        )
    )


def _section(title: str, lines: list[str]) -> Text:
    return Text.assemble((title, "bold"), "".join(f"\n  {line}" for line in lines), overflow="fold")
