"""`onnxcomp quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from onnxcomp.cli import options
from onnxcomp.cli.choice import Choice
from onnxcomp.cli.help import examples
from onnxcomp.cli.output import produce

EXAMPLES = examples(
    "quantize model.onnx --calibration data.npz",
    "quantize model.onnx --calibration data.npz --exclude Gemm",
    "quantize model.onnx --calibration data.npz --exclude '/head/*'",
    "quantize model.onnx --calibration data.npz --min-cosine 0.999",
    "quantize model.onnx --calibration data.npz --mode auto",
    "quantize model.onnx --mode dynamic",
    "quantize model.onnx --mode weight-only --bits 8",
    "quantize model.onnx --calibration data.npz --sensitivity units.json",
)


def _smooth(ctx: click.Context, param: click.Parameter, value: str | None) -> str | float | None:
    """`auto`, `none`, or a number from 0 to 1."""
    if value in (None, "auto", "none"):
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
@options.change(
    "--mode",
    type=Choice(["static", "dynamic", "weight-only", "fp16", "bf16", "auto"]),
    default="static",
    show_default=True,
    help="How; auto: whichever of those that fit measures best.",
)
@options.change(
    "--ranges",
    type=Choice(["mse", "minmax", "percentile", "entropy"]),
    show_default="mse",
    help="static: how activation ranges are chosen.",
)
@options.change(
    "--smooth",
    callback=_smooth,
    metavar="auto|none|A",
    show_default="auto",
    help="static: SmoothQuant for products with matrices, chosen by the error of the outputs, or alpha from 0 to 1.",
)
@options.change(
    "--correct",
    type=Choice(["auto", "none"]),
    show_default="none",
    help="static: auto: ranges by parts of the model, equalised channels and corrected biases, each kept where the "
    "error of the outputs falls. Takes about as long again as the rest.",
)
@options.change("--bits", type=Choice(["4", "8"]), show_default="4", help="weight-only: of a weight.")
@options.change("--block", type=int, metavar="N", show_default="32", help="weight-only: weights that share a scale.")
@options.change(
    "--method",
    type=Choice(["auto", "rtn", "mse", "gptq"]),
    show_default="auto",
    help="weight-only: how weights are rounded.",
)
@options.sensitivity
@options.planning
@options.selecting
@options.portable
@options.running
@options.writing
@options.reporting
def quantize(model: Path, output: Path | None, force: bool, **values: Any) -> None:
    """INT8 with ranges from calibration feeds, or shorter numbers of another kind (--mode)."""
    names = ("mode", "ranges", "smooth", "correct", "sensitivity", "block", "method")
    chosen = {name: values[name] for name in names} | {"bits": values["bits"] and int(values["bits"])}
    produce("quantize", model, output, force, values, **chosen, **options.planned(values))
