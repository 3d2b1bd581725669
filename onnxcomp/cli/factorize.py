"""`onnxcomp factorize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from onnxcomp.cli import options
from onnxcomp.cli.choice import Choice
from onnxcomp.cli.help import examples
from onnxcomp.cli.output import produce

EXAMPLES = examples(
    "factorize m.onnx --energy 0.98 --calibration data.npz",
    "factorize m.onnx --macs 0.5 --calibration 'images:photos?n=512'",
    "factorize m.onnx --latency 0.7 --calibration data.npz",
    "factorize m.onnx --params 0.5 --dry-run -o plan.json",
    "factorize m.onnx --plan plan.json --calibration data.npz",
)

BUDGETS = ("energy", "params", "macs", "latency")
OWN = (*BUDGETS, "method", "alpha", "refit", "round_to", "allow_slower")


@click.command(epilog=EXAMPLES)
@click.argument("model", type=options.PATH)
@options.change("--energy", type=float, metavar="E", help="Share of each layer's output energy that is kept, 0 to 1.")
@options.budgets
@options.change(
    "--method",
    type=Choice(["auto", "covariance", "asvd", "svd"]),
    metavar="NAME",
    default="auto",
    show_default="covariance with data, svd without",
    help="Directions that are kept: covariance, asvd, svd.",
)
@options.change(
    "--alpha", type=float, default=0.1, show_default=True, metavar="A", help="Regularisation of the covariance."
)
@options.change(
    "--refit",
    type=Choice(["auto", "least-squares", "none"]),
    default="auto",
    show_default="least-squares with data",
    help="What is done with the second factors and the layers that stay whole.",
)
@options.round_to("Ranks are multiples of it.")
@options.change("--allow-slower", is_flag=True, help="Factorise layers too whose two parts measure slower.")
@options.planning
@options.calibrating
@options.judging
@options.selecting
@options.running
@options.writing
@options.reporting
def factorize(model: Path, output: Path | None, force: bool, **values: Any) -> None:
    """Write large weights as two thin ones, where that is smaller and measures faster; refit, prove, measure.

    Which directions of a layer's output are kept is learned from calibration data; without data the SVD of the weights
    decides, and nothing is refitted.
    """
    hint = "--energy 0.98 keeps 98 % of the energy of each layer's output"
    options.check_budget("factorize needs to know how far", BUDGETS, values, hint)
    produce(
        "factorize", model, output, force, values, **{name: values[name] for name in OWN}, **options.planned(values)
    )
