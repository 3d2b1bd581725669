"""`onnxcomp prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from onnxcomp.cli import options
from onnxcomp.cli.choice import Choice
from onnxcomp.cli.help import examples
from onnxcomp.cli.output import produce

EXAMPLES = examples(
    "prune m.onnx --macs 0.5 --calibration data.npz",
    "prune m.onnx --latency 0.7 --calibration 'images:photos?n=256'",
    "prune m.onnx --ratio 0.3 --exclude '/head/*'    # no data: L1",
    "prune m.onnx --params 0.5 --dry-run -o plan.json",
    "prune m.onnx --plan plan.json --calibration data.npz",
)

BUDGETS = ("ratio", "macs", "params", "latency")
OWN = (*BUDGETS, "importance", "scope", "refit", "round_to", "max_ratio")


@click.command(epilog=EXAMPLES)
@click.argument("model", type=options.PATH)
@options.change("--ratio", type=float, metavar="R", help="Share of the channels to remove.")
@options.budgets
@options.change(
    "--importance",
    type=Choice(["auto", "l1", "l2", "bn", "fpgm", "activation", "wanda", "obs"]),
    metavar="NAME",
    default="auto",
    show_default="obs with data, l1 without",
    help="Ranking of channels: l1, l2, bn, fpgm, activation, wanda, obs.",
)
@options.change(
    "--scope",
    type=Choice(["global", "uniform", "isomorphic"]),
    default="global",
    show_default=True,
    help="Who competes: all channels, those of one cell, those of cells of equal structure.",
)
@options.change(
    "--refit",
    type=Choice(["auto", "least-squares", "none"]),
    default="auto",
    show_default="least-squares with data",
    help="What is done with the weights that stay.",
)
@options.round_to("Keep multiples of so many channels.")
@options.change("--max-ratio", type=float, metavar="X", help="Largest share of the channels of one cell that may go.")
@options.planning
@options.calibrating
@options.judging
@options.selecting
@options.running
@options.writing
@options.reporting
def prune(model: Path, output: Path | None, force: bool, **values: Any) -> None:
    """Remove channels and everything that depends on them, refit what is left, prove it, measure it.

    The result computes what the original computes with those channels masked; that is checked on every run, before the
    refit. Without calibration data channels are ranked by their weights alone and nothing is refitted.
    """
    hint = "--macs 0.5 leaves half of the multiply-accumulates"
    options.check_budget("prune needs to know how much", BUDGETS, values, hint)
    produce("prune", model, output, force, values, **{name: values[name] for name in OWN}, **options.planned(values))
