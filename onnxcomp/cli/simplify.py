"""`onnxcomp simplify`."""

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
@options.judging
@options.selecting
@options.running
@click.option("--fix-shape", is_flag=True, help="Make the shapes of --shape static in the result.")
@options.reporting
def simplify(model: Path, output: Path | None, force: bool, **values: Any) -> None:
    """Rewrite MODEL exactly: constants, shape arithmetic, batch norms and pads folded; what does nothing removed.

    \b
    onnxcomp simplify model.onnx -o small.onnx
    onnxcomp simplify model.onnx --shape input=1,3,224,224 --fix-shape
    """
    path = output_path(model, output, force)
    check_reports(values)
    from onnxcomp.driver.jobs import simplify as run

    with progress(values) as callback:
        result = run(model, **options.shared(values), progress=callback)
        report = save(result, path, force)
    show(report, values)
