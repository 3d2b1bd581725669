"""`onnxcomp`: the group of verbs, loaded only when called, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import rich_click as click

from onnxcomp import __version__
from onnxcomp.errors import OnnxcompError

VERBS = {
    "optimize": "The whole job: simplify and quantise, each step proved and measured.",
    "simplify": "Exact rewrites: fold constants, batch norms and pads; remove what does nothing.",
    "quantize": "Static INT8 with the numbers you give.",
    "verify": "The gates alone: is one model as close to another as asked?",
    "bench": "Honest latency of one or more models, interleaved.",
}

EXIT_CODES = """\b
Exit codes: 0 done · 1 a gate is not met · 2 wrong usage · 3 not available here
            4 model or data can't be used · 5 can't write · 6 time or memory limit
            70 our fault · 130 interrupted"""


class LazyGroup(click.RichGroup):
    """Imports a verb's module when the verb is called: `--help` imports neither onnx nor onnxruntime."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        if ctx.resilient_parsing or any(a in ("-h", "--help") for a in sys.argv[1:2]):
            return click.RichCommand(name, short_help=VERBS[name])  # the list of verbs needs their names only
        command: click.Command = getattr(import_module(f"onnxcomp.cli.{name}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from difflib import get_close_matches

        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = get_close_matches(args[0], VERBS, 1)
            raise click.UsageError(f"No verb {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""), ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="onnxcomp")
def cli() -> None:
    """Compress ONNX models for deployment: smaller and faster, proved to behave like the original, and measured.

    \b
    onnxcomp optimize model.onnx --calibration data.npz
    onnxcomp bench model.onnx model.opt.onnx
    """


def main() -> None:
    """Runs the command line; errors become one message on stderr and an exit code. A traceback only with -vv."""
    verbose = any(a in ("-vv", "-vvv") for a in sys.argv[1:])
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        code = _say("interrupted: nothing was left half-written", 130)
    except KeyboardInterrupt:
        code = _say("interrupted: nothing was left half-written", 130)
    except click.ClickException as error:
        error.show()
        code = 2
    except OnnxcompError as error:
        if verbose:
            raise
        code = _say(f"{error.message}" + (f"\n  {error.hint}" if error.hint else ""), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except MemoryError:
        code = _say("out of memory", 6)
    except Exception as error:
        if verbose:
            raise
        code = _say(f"our fault: {type(error).__name__}: {error}\n  please report it; -vv shows where it happened", 70)
    sys.exit(code or 0)


def _say(message: str, code: int) -> int:
    from onnxcomp.report.text import printable

    lines = message.split("\n")
    click.echo(f"onnxcomp: {printable(lines[0], 2000)}", err=True)
    for line in lines[1:]:
        click.echo(printable(line, 2000), err=True)
    return code


if __name__ == "__main__":
    main()
