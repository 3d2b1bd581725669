"""`onnxcomp doctor`."""

from __future__ import annotations

from typing import Any

import rich_click as click
from click.exceptions import Exit

from onnxcomp.cli import options
from onnxcomp.cli.help import examples
from onnxcomp.cli.show import check_reports
from onnxcomp.cli.show_found import DIAGNOSIS_SUFFIXES, show_diagnosis

EXAMPLES = examples("doctor", "doctor --format json", "doctor --format markdown --report machine.json")


@click.command(epilog=EXAMPLES)
@options.reporting
def doctor(**values: Any) -> None:
    """Check this machine and its packages: versions, providers, CPU, GPU, conflicts, and what to do about them.

    Exit code 3 if something that compressing a model needs is missing or broken, else 0.
    """
    check_reports(values, DIAGNOSIS_SUFFIXES)
    from onnxcomp.driver.diagnosis import doctor as run

    found = run()
    show_diagnosis(found, values)
    if found.exit_code:
        raise Exit(found.exit_code)
