"""`onnxcomp recipe`: shipped recipes, and JSON Schemas of the files that users write and read."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import rich_click as click

from onnxcomp.cli import names
from onnxcomp.cli.choice import Choice
from onnxcomp.cli.console import WIDTH
from onnxcomp.cli.group import Group
from onnxcomp.cli.help import examples, help_config
from onnxcomp.cli.show import write_stdout

EXAMPLES = examples(
    "recipe show",
    "recipe show static-int8 > mine.toml",
    "recipe schema plan > plan.schema.json",
)


@click.group(cls=Group, epilog=EXAMPLES)
@click.rich_config(help_config=help_config())
@click.help_option("-h", "--help")
def recipe() -> None:
    """Show shipped recipes, and the JSON Schema of recipes, plans and reports."""


@recipe.command(epilog=examples("recipe show", "recipe show smallest"))
@click.argument("name", required=False, shell_complete=names.completing(names.recipes))
@click.help_option("-h", "--help")
def show(name: str | None) -> None:
    """Print the recipe NAME as TOML, which --recipe takes as a file; without NAME: which there are."""
    from onnxcomp.recipe import shipped, shipped_text

    write_stdout(shipped_text(name) if name is not None else _listed(shipped()))


@recipe.command(epilog=examples("recipe schema", "recipe schema report"))
@click.argument("subject", default="recipe", type=Choice(names.schemas()))
@click.help_option("-h", "--help")
def schema(subject: str) -> None:
    """Print the JSON Schema of a SUBJECT: recipe (the default), plan, sensitivity, report or comparison."""
    write_stdout(names.schema_text(subject))


def _listed(texts: Mapping[str, str]) -> str:
    """Each name, and what the comment at the top of its file says."""
    indent = max(map(len, texts)) + 2
    lines = []
    for name, text in texts.items():
        comment = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("# "))
        lines.append(fill(f"{name:<{indent}}{comment}", WIDTH, subsequent_indent=" " * indent))
    return "\n".join(lines) + "\n"
