"""`onnxcomp inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import rich_click as click

from onnxcomp.cli import options
from onnxcomp.cli.console import progress
from onnxcomp.cli.help import examples
from onnxcomp.cli.show import check_reports
from onnxcomp.cli.show_found import show_inspection

EXAMPLES = examples(
    "inspect model.onnx",
    "inspect model.onnx --nodes --shape input=1,3,640,640",
    "inspect model.onnx --calibration data.npz --format json",
    "inspect model.onnx --target arm64 --report model.html",
)


@click.command(epilog=EXAMPLES)
@click.argument("model", type=options.PATH)
@options.calibrating
@options.selecting
@options.running
@click.option("--nodes", is_flag=True, help="List the nodes too, the most costly first.", panel="Output")
@click.option(
    "--sort",
    type=click.Choice(["macs", "graph"]),
    default="macs",
    show_default=True,
    help="Order of --nodes: by multiply-accumulates, or as in the graph.",
    panel="Output",
)
@options.reporting
def inspect(model: Path, nodes: bool, sort: Literal["macs", "graph"], **values: Any) -> None:
    """Show what MODEL is made of, and what each pass could do with which nodes, and why not with the others.

    Nothing is run, and weights are read only where there are few: a model of gigabytes takes a moment. With
    --calibration the model is run, so that shapes and ranges are those of real calls.
    """
    check_reports(values)
    shared = options.shared(values)
    from onnxcomp.driver.inspection import inspect as run

    taken = ["calibration", "target", "ep", "only", "exclude", "shape", "threads", "seed", "time_limit", "custom_ops"]
    with progress(values) as callback:
        found = run(model, **{name: shared[name] for name in taken}, progress=callback)
    show_inspection(found, sort if nodes else None, values)
