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


def _smooth(ctx: click.Context, param: click.Parameter, value: str) -> str | float:
    """`auto`, `none`, or a number from 0 to 1."""
    if value in ("auto", "none"):
        return value
    try:
        alpha = float(value)
    except ValueError:
        alpha = -1.0
    if not 0 <= alpha <= 1:
        raise click.BadParameter(f"{value!r} is neither auto nor none nor a number from 0 to 1")
    return alpha


@click.command(epilog=EXAMPLES)
@click.argument("model", type=options.PATH)
@options.calibrating
@options.judging
@click.option(
    "--ranges",
    type=click.Choice(["mse", "minmax", "percentile", "entropy"]),
    default="mse",
    show_default=True,
    help="How activation ranges are chosen.",
    panel="What may change",
)
@click.option(
    "--smooth",
    callback=_smooth,
    metavar="auto|none|A",
    default="auto",
    show_default=True,
    help="SmoothQuant for products with matrices: chosen by the error of the outputs, or alpha from 0 to 1.",
    panel="What may change",
)
@click.option(
    "--correct",
    type=click.Choice(["auto", "none"]),
    default="none",
    show_default=True,
    help="auto: ranges by parts of the model and corrected biases, kept where the error of the outputs falls. Takes "
    "about as long again as the rest.",
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
    chosen = {"ranges": values["ranges"], "smooth": values["smooth"], "correct": values["correct"]}
    produce("quantize", model, output, force, values, **chosen, **options.planned(values))
