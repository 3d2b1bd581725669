"""`onnxcomp optimize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from onnxcomp.cli import options
from onnxcomp.cli.console import check_reports, progress, show
from onnxcomp.cli.output import output_path, save


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@options.writing
@options.calibrating
@options.judging
@click.option(
    "--goal",
    type=click.Choice(["balanced", "latency", "size"]),
    default="balanced",
    show_default=True,
    help="What may be traded.",
)
@options.selecting
@options.running
@click.option("--fix-shape", is_flag=True, help="Make the shapes of --shape static in the result.")
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Steps and gates; default: simplify, then static INT8.",
)
@click.option(
    "--portable",
    is_flag=True,
    help="Only standard ONNX operators in the result (so far the result never holds others).",
)
@options.reporting
def optimize(model: Path, output: Path | None, force: bool, **values: Any) -> None:
    """Simplify and quantise MODEL, each step behind its gates; the result is never worse than the input.

    \b
    onnxcomp optimize model.onnx --calibration data.npz
    onnxcomp optimize model.onnx --calibration images:photos?mean=imagenet&std=imagenet --min-cosine 0.995
    onnxcomp optimize model.onnx --calibration train.npz --eval test.npz --max-drop 0.005 --report report.json
    onnxcomp optimize model.onnx                    (no data: simplify only, proved on random feeds)
    """
    path = output_path(model, output, force)
    check_reports(values)
    from onnxcomp.driver.jobs import optimize as run

    with progress(values) as callback:
        result = run(model, **options.shared(values), progress=callback)
        report = save(result, path, force)
    show(report, values)
    if values["calibration"] is None and not values["quiet"]:
        click.echo(
            "· for INT8 give 100 to 500 real inputs: --calibration data.npz (one array for each input, samples along axis 0)",
            err=True,
        )
