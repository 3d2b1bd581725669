"""`onnxcomp simplify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from onnxcomp.cli import options
from onnxcomp.cli.help import examples
from onnxcomp.cli.output import produce

EXAMPLES = examples(
    "simplify model.onnx -o small.onnx",
    "simplify model.onnx --shape input=1,3,224,224 --fix-shape",
    "simplify model.onnx --eval test.npz --min-cosine 0.9999",
)


@click.command(epilog=EXAMPLES)
@click.argument("model", type=options.PATH)
@options.judging
@options.planning
@options.selecting
@options.running
@options.fix_shape
@options.writing
@options.reporting
def simplify(model: Path, output: Path | None, force: bool, **values: Any) -> None:
    """Rewrite MODEL exactly: constants, shape arithmetic, batch norms and pads folded; what does nothing removed."""
    produce("simplify", model, output, force, values, **options.planned(values))
