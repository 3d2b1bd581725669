"""`onnxcomp bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from onnxcomp.cli import options
from onnxcomp.cli.console import progress
from onnxcomp.cli.help import examples
from onnxcomp.cli.show import show_benchmark

EXAMPLES = examples(
    "bench model.onnx model.opt.onnx --threads 1",
    "bench model.onnx model.opt.onnx --calibration data.npz",
    "bench model.onnx --shape input=8,3,224,224 --format json",
)


@click.command(epilog=EXAMPLES)
@click.argument("models", nargs=-1, required=True, type=options.PATH, metavar="MODEL...")
@click.option(
    "--calibration", metavar="SPEC", help="Feeds; the first one is timed. Default: a random one.", panel="Data"
)
@options.running
@options.timing
@options.formatting
def bench(models: tuple[Path, ...], **values: Any) -> None:
    """Time MODELs in turns on the same feed. Speed-ups are ratios of 10th percentiles, over the first MODEL."""
    shared = options.shared(values)
    from onnxcomp.driver.jobs import bench as run

    with progress(values) as callback:
        result = run(list(models), min_seconds=values["min_seconds"], **shared, progress=callback)
    show_benchmark(result, values)
