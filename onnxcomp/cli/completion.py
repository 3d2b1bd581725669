"""`onnxcomp completion`: the script by which a shell completes verbs, options, recipes, targets and files."""

from __future__ import annotations

import rich_click as click
from click.shell_completion import get_completion_class

from onnxcomp.cli import shells
from onnxcomp.cli.choice import Choice
from onnxcomp.cli.help import examples
from onnxcomp.cli.show import write_stdout

VARIABLE = "_ONNXCOMP_COMPLETE"
INSTALL = {
    "bash": "d=~/.local/share/bash-completion/completions; mkdir -p $d && onnxcomp completion bash > $d/onnxcomp",
    "zsh": "echo 'eval \"$(onnxcomp completion zsh)\"' >> ~/.zshrc",
    "fish": "onnxcomp completion fish > ~/.config/fish/completions/onnxcomp.fish",
}
EXAMPLES = examples('completion bash    # try it: eval "$(onnxcomp completion bash)"', "completion fish")


@click.command(epilog=EXAMPLES)
@click.argument("shell", type=Choice(list(INSTALL)))
@click.help_option("-h", "--help")
def completion(shell: str) -> None:
    """Print the completion script for SHELL (bash, zsh or fish); its first lines say how to install it."""
    from onnxcomp.cli.main import cli

    shells.register()
    kind = get_completion_class(shell)
    assert kind is not None
    facts = kind(cli, {}, "onnxcomp", VARIABLE)
    script = facts.source_template % facts.source_vars()
    first, _, rest = script.lstrip("\n").partition("\n")
    advice = f"# install: {INSTALL[shell]}"
    # zsh reads #compdef in the first line only.
    lines = (first, advice, rest) if first.startswith("#compdef") else (advice, first, rest)
    write_stdout("\n".join(lines).rstrip("\n") + "\n")
