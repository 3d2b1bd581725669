"""Plans from files: read, checked against the pass and the model, replayed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx_ir as ir
from pydantic import BaseModel, ValidationError

from onnxcomp.errors import PlanError
from onnxcomp.model.fingerprint import structure_sha256
from onnxcomp.passes.base import Pass, Plan
from onnxcomp.report.text import complaint, printable

MAX_BYTES = 256 * 2**20


def load_plan(path: str | os.PathLike[str], step: Pass[Any]) -> Plan:
    """Reads a plan of the kind that `step` makes.

    Raises:
        PlanError: Not found, not JSON, or not such a plan; names the place inside it.
    """
    name = os.fspath(path)
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise PlanError(f"plan {name}: larger than {MAX_BYTES >> 20} MiB")
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a text file"
        raise PlanError(f"plan {name}: {reason}", hint="--dry-run --format json writes one to stdout") from error
    try:
        _check_pass(PassName.model_validate_json(text).pass_name, step)
        plan: Plan = step.plan_type.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise PlanError(f"plan {name}: {where}: {complaint(first['msg'])}{more}") from error
    return plan


def check_origin(plan: Plan, step: Pass[Any], model: ir.Model) -> None:
    """The plan is one of this pass, made for a model of this structure.

    Raises:
        PlanError: It is not.
    """
    _check_pass(plan.pass_name, step)
    if plan.source_sha256 != structure_sha256(model):
        raise PlanError(
            "the plan was made for another model: operators, names or shapes differ",
            hint="make a new one with --dry-run",
        )


class PassName(BaseModel):
    """What every plan says, whatever else it holds."""

    pass_name: str


def _check_pass(name: str, step: Pass[Any]) -> None:
    if name != step.name:
        hint = "replay it with the verb, or the --mode of quantize, that made it"
        raise PlanError(f"the plan is one of {printable(name)}, not of {step.name}", hint=hint)
