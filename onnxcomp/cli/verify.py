"""`onnxcomp verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click
from click.exceptions import Exit

from onnxcomp.cli import options
from onnxcomp.cli.console import progress
from onnxcomp.cli.help import examples
from onnxcomp.cli.show import check_reports, show

EXAMPLES = examples(
    "verify small.onnx --against m.onnx --eval test.npz --max-drop 0.01",
    "verify small.onnx --against m.onnx --min-cosine 0.999",
)


@click.command(epilog=EXAMPLES)
@click.argument("model", type=options.PATH)
@click.option("--against", required=True, type=options.PATH, metavar="REF", help="The original.", panel="Data")
@options.judging
@options.running
@options.reporting
def verify(model: Path, against: Path, **values: Any) -> None:
    """Check that MODEL answers as REF does: exit code 0 if all gates hold, 1 if not."""
    check_reports(values)
    shared = options.shared(values)
    from onnxcomp.driver.jobs import verify as run

    with progress(values) as callback:
        report = run(model, against, **shared, progress=callback)
    show(report, values)
    if report.exit_code:
        raise Exit(report.exit_code)
