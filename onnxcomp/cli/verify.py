"""`onnxcomp verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from onnxcomp.cli import options
from onnxcomp.cli.console import check_reports, progress, show


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--against", required=True, type=click.Path(path_type=Path), metavar="REF", help="The model to compare with."
)
@options.judging
@options.running
@options.reporting
def verify(model: Path, against: Path, **values: Any) -> None:
    """Check that MODEL answers as REF does: exit 0 if all gates hold, 1 if not. Without --eval on random feeds.

    \b
    onnxcomp verify model.opt.onnx --against model.onnx --eval test.npz --max-drop 0.01
    onnxcomp verify model.opt.onnx --against model.onnx --min-cosine 0.999
    """
    check_reports(values)
    from onnxcomp.driver.jobs import verify as run

    with progress(values) as callback:
        report = run(model, against, **options.shared(values), progress=callback)
    show(report, values)
    if report.exit_code:
        raise click.exceptions.Exit(report.exit_code)
