"""`onnxcomp`: the group of verbs, loaded only when called, and the one place where errors become exit codes."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

import rich_click as click
from click.exceptions import Abort, Exit, NoArgsIsHelpError
from click.shell_completion import shell_complete

from onnxcomp import __version__
from onnxcomp.cli import shells
from onnxcomp.cli.group import Group
from onnxcomp.cli.help import closing, help_config
from onnxcomp.errors import InternalError, LimitError, OnnxcompError, UsageError, WriteError

VERBS = (
    *("optimize", "simplify", "prune", "factorize", "quantize"),
    *("verify", "compare", "bench", "inspect", "doctor", "recipe", "completion"),
)
INTERRUPTED = 130
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Errors of the system that say that a place takes no more, where the module that met one did not say it better."""


class LazyGroup(Group):
    """Imports a verb's module when the verb is asked for. None of them imports onnx or ONNX Runtime before it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = getattr(import_module(f"onnxcomp.cli.{name}"), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=closing())
@click.rich_config(help_config=help_config())
@click.version_option(__version__, prog_name="onnxcomp")
def cli() -> None:
    """Compress ONNX models for deployment: smaller and faster, proved to behave like the original, and measured."""


def main() -> None:
    """The console script. What ends a job from outside (a CI that cancels, a container that stops) cleans up too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Python tries the folder for temporary files with a file of its own: now, not when an interrupt could leave it.
    with suppress(OSError):
        tempfile.gettempdir()
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Runs one command line and returns its exit code.

    An error becomes one message on stderr. The traceback comes before it only with -vv.

    Args:
        args: Without the program's name.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name or a figure must not fail because the terminal is not UTF-8
            stream.reconfigure(errors="backslashreplace")
    try:
        return _invoke(list(args))
    except (KeyboardInterrupt, Abort):
        return _say("interrupted; nothing was left half-written", None, INTERRUPTED)
    except NoArgsIsHelpError as error:
        click.echo(error.message, err=True)
        return UsageError.exit_code
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "onnxcomp"
        return _say(error.format_message(), f"{command} --help shows what there is", UsageError.exit_code)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OnnxcompError as error:
        return _say(error.message, error.hint, error.exit_code, args)
    except MemoryError:
        hint = "a smaller batch or shape, fewer threads, or a larger machine"
        return _say("out of memory", hint, LimitError.exit_code, args)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            hint = f"free some: models on trial are written to {tempfile.gettempdir()} (TMPDIR chooses another folder)"
            return _say(f"can't write: {error.strerror}", hint, WriteError.exit_code, args)
        message = f"our fault: {type(error).__name__}: {error}"
        return _say(message, "please report it; -vv shows where it happened", InternalError.exit_code, args)


def _invoke(args: list[str]) -> int:
    """As `click.Group.main`, but that ends with 1 when a pipe is closed, and 1 means a failed gate here."""
    if "_ONNXCOMP_COMPLETE" in os.environ:
        shells.register()
        return shell_complete(cli, {}, "onnxcomp", "_ONNXCOMP_COMPLETE", os.environ["_ONNXCOMP_COMPLETE"])
    try:
        with cli.make_context("onnxcomp", args) as ctx:
            cli.invoke(ctx)
        if sys.stdout is not None:
            sys.stdout.flush()
    except Exit as end:
        return end.exit_code
    return 0


def _say(message: str, hint: str | None, code: int, args: Sequence[str] = ()) -> int:
    from rich.text import Text

    from onnxcomp.cli.console import console
    from onnxcomp.report.text import printable

    if _verbosity(args) > 1:
        import traceback

        traceback.print_exc()
    lines = [printable(line, 2000) for line in message.split("\n")]
    lines += [printable(f"  {line}", 2000) for line in (hint or "").split("\n") if line]
    text = Text.assemble(("onnxcomp: ", "bold red"), "\n".join(lines))
    console(stderr=True, no_color="--no-color" in args).print(text, soft_wrap=True)
    return code


def _verbosity(args: Sequence[str]) -> int:
    """How often -v was given; read from the words, as an error may come before they are parsed."""
    short = sum(a.count("v") for a in args if re.fullmatch(r"-[vq]+", a))
    return short + list(args).count("--verbose")


if __name__ == "__main__":
    main()
