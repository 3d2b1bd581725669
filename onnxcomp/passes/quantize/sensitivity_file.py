"""The sensitivity file: what every unit was measured to lose and to gain, for people to read and to decide by."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from onnxcomp.errors import PlanError
from onnxcomp.passes.quantize.plan import QuantPlan, Unit
from onnxcomp.report.files import write_file
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import Record
from onnxcomp.report.text import complaint, harmless_json

SCHEMA = "onnxcomp-sensitivity/1"


class SensitivityFile(Record):
    """Units of one model for one target.

    Args:
        source_sha256: Of the structure of the model that they belong to, as in its plans.
        target: Name of the target.
        units: Edit their `precision` to decide by hand.
    """

    schema_: str = Field(default=SCHEMA, alias="schema")
    source_sha256: str
    target: str
    units: tuple[Unit, ...] = ()

    model_config = Record.model_config | {"populate_by_name": True}


def read_units(path: str | os.PathLike[str], plan: QuantPlan) -> tuple[Unit, ...]:
    """The units in the file; none if it doesn't exist yet.

    Raises:
        PlanError: It can't be read, is no sensitivity file, or one of another model or target.
    """
    name = os.fspath(path)
    try:
        found = SensitivityFile.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a text file"
        raise PlanError(f"sensitivity file {name}: {reason}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PlanError(f"sensitivity file {name}: {where}: {complaint(first['msg'])}") from error
    if (found.source_sha256, found.target) != (plan.source_sha256, plan.target):
        other = "model" if found.source_sha256 != plan.source_sha256 else f"target, {found.target}"
        raise PlanError(f"sensitivity file {name} is of another {other}", hint="name a file that does not exist yet")
    return found.units


def write_units(path: str | os.PathLike[str], plan: QuantPlan, units: Sequence[Unit]) -> None:
    """Writes the units, as a whole or not at all.

    Raises:
        WriteError: It can't be written.
    """
    content = SensitivityFile(source_sha256=plan.source_sha256, target=plan.target, units=tuple(units))
    text = harmless_json(content.model_dump_json(by_alias=True, indent=1)) + "\n"
    write_file(Path(path), text, "sensitivity file")


def decided(plan: QuantPlan, units: Sequence[Unit]) -> QuantPlan:
    """The plan with the units, and those that were set to float in float."""
    names = frozenset(name for unit in units if unit.precision == "float" for name in unit.nodes)
    plan = plan.model_copy(update={"units": tuple(units)})
    return plan.with_float(names, Reason.EXCLUDED, "Set to float in the sensitivity file.")
