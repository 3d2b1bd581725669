"""The options that verbs share, and what they become."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from onnxcomp.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])


def _stack(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def writing(function: Function) -> Function:
    """-o, --force."""
    return _stack(
        click.option(
            "-o", "--output", type=click.Path(path_type=Path), help="Result; default: MODEL with the suffix .opt.onnx."
        ),
        click.option("--force", is_flag=True, help="Overwrite an existing output."),
    )(function)


def judging(function: Function) -> Function:
    """--eval, --metric, --max-drop, --min-cosine."""
    return _stack(
        click.option(
            "--eval",
            "eval_",
            metavar="SPEC",
            help="Feeds to judge by; default: the last fifth of the calibration feeds.",
        ),
        click.option(
            "--metric", metavar="NAME", help="top1, top5, mse, psnr, spearman, or py:FILE.py:FUNC; needs labels."
        ),
        click.option("--max-drop", type=float, metavar="X", help="Largest drop of the metric, in its own unit."),
        click.option(
            "--min-cosine", type=click.FloatRange(0, 1), metavar="X", help="Lowest mean cosine of each output."
        ),
    )(function)


def calibrating(function: Function) -> Function:
    return click.option(
        "--calibration",
        metavar="SPEC",
        help="Feeds to learn from: data.npz, a folder of .npz, images:DIR, py:reader.py:name, random:64.",
    )(function)


def selecting(function: Function) -> Function:
    return _stack(
        click.option(
            "--only", multiple=True, metavar="PATTERN", help="Touch only these nodes or operator types (globs)."
        ),
        click.option(
            "--exclude", multiple=True, metavar="PATTERN", help="Leave these nodes or operator types alone (globs)."
        ),
    )(function)


def running(function: Function) -> Function:
    """Options about the machine and the model's inputs."""
    return _stack(
        click.option(
            "--target",
            default="auto",
            show_default=True,
            help="Machine that the result is for: auto, cpu-vnni, cpu-avx2, arm64.",
        ),
        click.option(
            "--ep", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where it is measured."
        ),
        click.option(
            "--shape", multiple=True, metavar="NAME=1,3,224,224", help="Size of a dynamic input or dimension."
        ),
        click.option(
            "--threads", type=click.IntRange(0), default=0, help="Threads of a session; default: the physical cores."
        ),
        click.option("--seed", type=int, default=0, show_default=True, help="For random feeds."),
        click.option(
            "--time-limit",
            type=click.FloatRange(min=0, min_open=True),
            metavar="S",
            help="Stop with exit code 6 after S seconds.",
        ),
        click.option(
            "--custom-ops",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="LIB",
            help="Library with custom operators (runs its code).",
        ),
    )(function)


def reporting(function: Function) -> Function:
    return _stack(
        click.option(
            "--report",
            "reports",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="Write the report: .json or .md.",
        ),
        click.option(
            "--format",
            "format_",
            type=click.Choice(["table", "json", "markdown"]),
            default="table",
            show_default=True,
            help="What stdout shows.",
        ),
        click.option("-v", "--verbose", count=True, help="Name every skipped node; twice: tracebacks."),
        click.option("-q", "--quiet", is_flag=True, help="No progress, no report; errors only."),
        click.option("--no-color", is_flag=True, help="No colours (as NO_COLOR)."),
    )(function)


def parse_shapes(texts: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """`NAME=1,3,224,224` as sizes by name.

    Raises:
        UsageError: Not of that form.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        try:
            shapes[name] = tuple(int(s) for s in sizes.lower().replace("x", ",").split(","))
        except ValueError:
            equals = ""
        if not equals or not name or min(shapes[name]) < 1:
            raise UsageError(
                f"--shape {text!r} is not NAME=1,3,224,224",
                hint="NAME is an input or a dynamic dimension; sizes are above zero",
            )
    return shapes


def shared(values: dict[str, Any]) -> dict[str, Any]:
    """Parsed click values → fields of `onnxcomp.driver.options.Options`."""
    names = (
        "calibration",
        "metric",
        "max_drop",
        "min_cosine",
        "target",
        "ep",
        "threads",
        "seed",
        "time_limit",
        "only",
        "exclude",
        "goal",
        "recipe",
    )
    chosen = {n: values[n] for n in (*names, "fix_shape", "portable") if n in values}
    chosen["eval"] = values.get("eval_")
    chosen["shape"] = parse_shapes(values.get("shape", ()))
    chosen["custom_ops"] = tuple(values.get("custom_ops", ()))
    return chosen
