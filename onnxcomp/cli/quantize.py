"""`onnxcomp quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from onnxcomp.cli import options
from onnxcomp.cli.help import examples
from onnxcomp.cli.output import produce

EXAMPLES = examples(
    "quantize model.onnx --calibration data.npz",
    "quantize model.onnx --calibration data.npz --exclude Gemm",
    "quantize model.onnx --calibration data.npz --exclude '/head/*'",
)


@click.command(epilog=EXAMPLES)
@click.argument("model", type=options.PATH)
@options.calibrating
@options.judging
@click.option(
    "--ranges",
    type=click.Choice(["mse", "minmax", "percentile"]),
    default="mse",
    show_default=True,
    help="How activation ranges are chosen.",
    panel="What may change",
)
@options.planning
@options.selecting
@options.portable
@options.running
@options.writing
@options.reporting
def quantize(model: Path, output: Path | None, force: bool, **values: Any) -> None:
    """Static INT8: every node that has an integer kernel, with ranges from calibration feeds."""
    produce("quantize", model, output, force, values, ranges=values["ranges"], **options.planned(values))
