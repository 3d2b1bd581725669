"""`onnxcomp bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import rich_click as click

from onnxcomp.cli import options
from onnxcomp.cli.console import console, progress


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL...")
@click.option("--calibration", metavar="SPEC", help="Feeds; the first one is timed. Default: random.")
@click.option(
    "--min-seconds", type=click.FloatRange(0.1), default=4.0, show_default=True, help="Time for the rounds at least."
)
@options.running
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("-v", "--verbose", count=True, help="-vv: tracebacks.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--no-color", is_flag=True)
def bench(models: tuple[Path, ...], **values: Any) -> None:
    """Time MODELs in turns on the same feed: percentiles, and the ratio of 10th percentiles with its interval.

    \b
    onnxcomp bench model.onnx model.opt.onnx --threads 1
    onnxcomp bench model.onnx --shape input=8,3,224,224 --format json
    """
    from onnxcomp.driver.jobs import bench as run
    from onnxcomp.report.terminal import benchmark_table

    shared = options.shared(values)
    shared.pop("eval")
    with progress(values) as callback:
        result = run(list(models), min_seconds=values["min_seconds"], **shared, progress=callback)
    if values["format_"] == "json":
        sys.stdout.write(result.model_dump_json(indent=2) + "\n")
    else:
        console(stderr=False, no_color=values["no_color"]).print(benchmark_table(result))
    style = "bold green" if result.verdict == "VALID" else "bold yellow"
    if not values["quiet"]:
        console(stderr=True, no_color=values["no_color"]).print(f"[{style}]{result.verdict}[/]  {result.reason}")
