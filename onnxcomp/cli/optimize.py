"""`onnxcomp optimize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from onnxcomp.cli import options
from onnxcomp.cli.help import examples
from onnxcomp.cli.output import produce

EXAMPLES = examples(
    "optimize m.onnx --calibration data.npz",
    "optimize m.onnx --calibration 'images:photos?mean=imagenet&n=256'",
    "optimize m.onnx --calibration a.npz --eval b.npz --max-drop 0.005",
    "optimize m.onnx --calibration data/ --goal size --report report.md",
    "optimize m.onnx --calibration data/ --prune auto",
    "optimize m.onnx --calibration data/ --factorize 0.5",
    "optimize m.onnx    # no data: simplify only, proved on random feeds",
)


@click.command(epilog=EXAMPLES)
@click.argument("model", type=options.PATH)
@options.calibrating
@options.judging
@options.goal
@options.selecting
@options.recipe
@options.prune
@options.factorize
@options.sensitivity
@options.portable
@options.running
@options.fix_shape
@options.writing
@options.reporting
def optimize(model: Path, output: Path | None, force: bool, **values: Any) -> None:
    """Simplify MODEL and quantise it the best measured way, each step behind its gates; never worse than the input."""
    produce("optimize", model, output, force, values, sensitivity=values["sensitivity"])
