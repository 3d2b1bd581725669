"""What `doctor` finds, as data: one check for each thing that compressing a model stands on."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from onnxcomp.report.structures import Record

DIAGNOSIS_SCHEMA = "onnxcomp-diagnosis/1"
Status = Literal["ok", "warning", "problem"]


class Check(Record):
    """One thing looked at. `advice`: what to do, empty where nothing needs doing."""

    name: str
    status: Status
    found: str
    advice: str = ""


class Diagnosis(Record):
    """This machine and its packages.

    Args:
        exit_code: 0, or 3 if some check is a problem.
        target: What `--target auto` means here.
        providers: Those of `--ep` that the installed ONNX Runtime has.
    """

    schema_: str = Field(default=DIAGNOSIS_SCHEMA, alias="schema")
    version: str
    exit_code: int
    target: str
    providers: tuple[str, ...]
    checks: tuple[Check, ...]

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, ser_json_inf_nan="strings")
