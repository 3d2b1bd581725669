"""`onnxcomp quantize`."""

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
@click.option(
    "--ranges",
    type=click.Choice(["mse", "minmax", "percentile"]),
    default="mse",
    show_default=True,
    help="How activation ranges are chosen.",
)
@options.judging
@options.selecting
@options.running
@options.reporting
def quantize(model: Path, output: Path | None, force: bool, **values: Any) -> None:
    """Static INT8: every node that has an integer kernel, with ranges from calibration feeds.

    \b
    onnxcomp quantize model.onnx --calibration data.npz
    onnxcomp quantize model.onnx --calibration data.npz --exclude Gemm --exclude '/head/*'
    """
    path = output_path(model, output, force)
    check_reports(values)
    from onnxcomp.driver.jobs import quantize as run

    with progress(values) as callback:
        result = run(model, ranges=values["ranges"], **options.shared(values), progress=callback)
        report = save(result, path, force)
    show(report, values)
