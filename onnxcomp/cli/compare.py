"""`onnxcomp compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from onnxcomp.cli import options
from onnxcomp.cli.console import progress
from onnxcomp.cli.help import examples
from onnxcomp.cli.show import COMPARISON_SUFFIXES, check_reports, show_comparison

EXAMPLES = examples(
    "compare m.onnx m.opt.onnx --eval test.npz",
    "compare m.onnx m.opt.onnx --eval test.npz -v --report diff.html",
    "compare m.onnx m.opt.onnx --threads 1 --format json",
)


@click.command(epilog=EXAMPLES)
@click.argument("a", type=options.PATH)
@click.argument("b", type=options.PATH)
@options.feeds("--eval", "eval_", help="Feeds for both. Default: random ones.")
@options.feeds("--calibration", help="The same under its other name.")
@options.metric
@options.running
@options.timing
@options.reporting
def compare(a: Path, b: Path, **values: Any) -> None:
    """Put B beside A: operators, weights, outputs, latency, time by kernel, and the error of each layer."""
    check_reports(values, COMPARISON_SUFFIXES)
    shared = options.shared(values)
    from onnxcomp.driver.compare import compare as run

    with progress(values) as callback:
        result = run(a, b, min_seconds=values["min_seconds"], **shared, progress=callback)
    show_comparison(result, values)
