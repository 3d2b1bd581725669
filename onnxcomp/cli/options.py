"""The options that verbs share, in the groups that help shows them in, and what they become."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from onnxcomp.cli import names
from onnxcomp.cli.choice import Choice
from onnxcomp.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])
PATH = click.Path(path_type=Path)

_data = partial(click.option, panel="Data")
_gate = partial(click.option, panel="Gates")
change = partial(click.option, panel="What may change")
_machine = partial(click.option, panel="Machine and shapes")
_output = partial(click.option, panel="Output")


def _stack(*options: Callable[[Function], Function]) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


feeds = partial(_data, metavar="SPEC", shell_complete=names.completing(lambda: names.KINDS, paths=True))

metric = _gate(
    "--metric",
    metavar="NAME",
    shell_complete=names.completing(lambda: names.METRICS),
    help="top1, top5, mse, psnr, spearman or py:FILE.py:FUNC; needs labels.",
)

calibrating = feeds(
    "--calibration",
    help="Feeds to learn from: data.npz, a folder of .npz files, images:DIR, py:reader.py:name, random:64.",
)

judging = _stack(
    feeds(
        "--eval",
        "eval_",
        help="Feeds to judge by. Default: the last fifth of the calibration feeds, else random ones.",
    ),
    metric,
    _gate("--max-drop", type=float, metavar="X", help="Largest drop of the metric, in its own unit: 0.01 of top1."),
    _gate("--min-cosine", type=click.FloatRange(0, 1), metavar="X", help="Lowest mean cosine of each output."),
)
"""--eval, --metric, --max-drop, --min-cosine."""

goal = change(
    "--goal",
    type=Choice(["balanced", "latency", "size"]),
    default="balanced",
    show_default=True,
    help="What may be traded: latency must be faster; size may be slower.",
)

recipe = change(
    "--recipe",
    metavar="NAME|FILE.toml",
    shell_complete=names.completing(names.recipes, paths=True),
    help="Steps and gates: a shipped recipe (see recipe show) or a file. Default: simplify, then what quantises best.",
)

selecting = _stack(
    change("--only", multiple=True, metavar="PATTERN", help="Touch only these nodes or operator types (globs)."),
    change("--exclude", multiple=True, metavar="PATTERN", help="Leave these nodes or operator types alone (globs)."),
)
"""--only, --exclude."""

sensitivity = change(
    "--sensitivity",
    type=PATH,
    metavar="FILE.json",
    help="What each unit loses in INT8 and gains in time: measured into FILE, or read from it. Edit it to decide.",
)

planning = _stack(
    change("--plan", type=PATH, metavar="FILE.json", help="Replay a plan; the budget and ranking in it hold."),
    change("--dry-run", is_flag=True, help="Plan only; --format json prints the plan, which can be edited."),
)
"""--plan, --dry-run."""

prune = change(
    "--prune",
    metavar="K|auto",
    help="Prune channels first: share of the MACs that may remain, or the largest cut that passes the gates.",
)

factorize = change(
    "--factorize",
    metavar="K|auto",
    help="Low-rank factors: share of the MACs that may remain, or the lowest ranks that pass the gates.",
)


budgets = _stack(
    change("--macs", type=float, metavar="K", help="Share of the multiply-accumulates that may remain."),
    change("--params", type=float, metavar="K", help="Share of the parameters that may remain."),
    change("--latency", metavar="K|Nms", help="Share of the latency that may remain, or milliseconds: 0.5, 8ms."),
)
"""--macs, --params, --latency."""


def check_budget(needs: str, names: Sequence[str], values: Mapping[str, Any], hint: str) -> None:
    """A budget or a plan is given, and not both.

    Args:
        needs: What the verb needs to know, in words; `names`: of its budgets.

    Raises:
        UsageError: Neither, or both.
    """
    given = [f"--{name}" for name in names if values[name] is not None]
    if not given and values["plan"] is None:
        listed = ", ".join(f"--{name}" for name in names)
        raise UsageError(f"{needs}: one of {listed} (or --plan)", hint=hint)
    if given and values["plan"] is not None:
        raise UsageError(f"--plan says what stays, so {' and '.join(given)} would mean nothing; leave one of them out")


def _multiple(ctx: click.Context, param: click.Parameter, value: str) -> int | str:
    """`auto`, or a number of channels."""
    if value == "auto" or value.isdecimal():
        return value if value == "auto" else int(value)
    raise click.BadParameter(f"{value!r} is neither auto nor a number of channels")


def round_to(text: str) -> Callable[[Function], Function]:
    """--round-to, with what it means for a verb."""
    return change(
        "--round-to",
        callback=_multiple,
        metavar="auto|N",
        default="auto",
        show_default="what the target's kernels want",
        help=text,
    )


portable = change(
    "--portable", is_flag=True, help="Only standard ONNX operators in the result, where ORT's own would be faster."
)

fix_shape = _machine("--fix-shape", is_flag=True, help="Make the shapes of --shape static in the result.")

running = _stack(
    _machine(
        "--target",
        default="auto",
        show_default=True,
        metavar="NAME",
        shell_complete=names.completing(names.targets),
        help="Machine that the result is for: auto, cpu-vnni, cpu-avx2, arm64, cuda, tensorrt, qnn.",
    ),
    _machine(
        "--ep",
        type=Choice(["cpu", "cuda"], {"gpu": "cuda"}),
        default="cpu",
        show_default=True,
        help="Where it is measured.",
    ),
    _machine(
        "--threads", type=click.IntRange(0), default=0, metavar="N", help="Of a session. Default: the physical cores."
    ),
    _machine("--shape", multiple=True, metavar="NAME=1,3,224,224", help="Size of a dynamic input or dimension."),
    _machine("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="For random feeds."),
    _machine(
        "--time-limit",
        type=click.FloatRange(min=0, min_open=True),
        metavar="S",
        help="Stop after S seconds with exit code 6.",
    ),
    _machine(
        "--custom-ops", multiple=True, type=PATH, metavar="LIB", help="Library of custom operators (runs its code)."
    ),
)
"""Options about the machine and the model's inputs."""

timing = _machine(
    "--min-seconds",
    type=click.FloatRange(0.1),
    default=4.0,
    show_default=True,
    metavar="S",
    help="Shortest measurement; longer where it is unstable.",
)

writing = _stack(
    _output("-o", "--output", type=PATH, metavar="PATH", help="Result. Default: MODEL with the suffix .opt.onnx."),
    _output("--force", is_flag=True, help="Overwrite an existing output."),
)
"""-o, --force."""

formatting = _stack(
    _output(
        "--format",
        "format_",
        type=Choice(["table", "json", "markdown"], {"md": "markdown", "text": "table"}),
        default="table",
        show_default=True,
        help="What stdout holds.",
    ),
    _output("-v", "--verbose", count=True, metavar=" ", help="Name every skipped node; -vv: tracebacks of errors."),
    _output("-q", "--quiet", is_flag=True, help="No progress, table or verdict: the exit code tells."),
    _output("--no-color", is_flag=True, help="No colours, as NO_COLOR."),
    click.help_option("-h", "--help", panel="Output"),
)
"""--format, -v, -q, --no-color, -h."""

reporting = _stack(
    _output(
        "--report",
        "reports",
        multiple=True,
        type=PATH,
        metavar="PATH",
        help="Write the report too: .html (a page to read offline), .json or .md.",
    ),
    formatting,
)
"""--report and `formatting`."""


def parse_shapes(texts: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """`NAME=1,3,224,224` as sizes by name.

    Raises:
        UsageError: Not of that form.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")
        try:
            shape = tuple(int(s) for s in sizes.lower().replace("x", ",").split(","))
        except ValueError:
            shape = (0,)
        if not name or min(shape) < 1:
            raise UsageError(
                f"--shape {text!r} is not NAME=1,3,224,224",
                hint="NAME is an input or a dynamic dimension; sizes are above zero",
            )
        if name in shapes:
            raise UsageError(f"--shape names {name!r} twice")
        shapes[name] = shape
    return shapes


def planned(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `planning`, as arguments of a job."""
    return {"plan": values["plan"], "dry_run": values["dry_run"]}


AS_THEY_ARE = (
    *("calibration", "metric", "max_drop", "min_cosine", "goal", "recipe", "prune", "factorize"),
    *("only", "exclude", "portable"),
    *("target", "ep", "threads", "seed", "time_limit", "custom_ops", "fix_shape"),
)


def shared(values: Mapping[str, Any]) -> dict[str, Any]:
    """Parsed values as fields of `onnxcomp.driver.options.Options`; what a verb has no option for keeps its default."""
    processors = os.cpu_count() or 1
    if values["threads"] > processors:
        raise UsageError(f"--threads {values['threads']}: this machine has {processors} processors")
    chosen = {name: values[name] for name in AS_THEY_ARE if name in values}
    if "eval_" in values:
        chosen["eval"] = values["eval_"]
    return chosen | {"shape": parse_shapes(values["shape"])}
