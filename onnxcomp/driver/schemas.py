"""JSON Schemas of what users write, edit and read, made from the structures themselves.

They are shipped as `recipes/schemas/*.json`; `python -m onnxcomp.driver.schemas` writes them anew.
"""

from __future__ import annotations

import json
from functools import reduce
from importlib.resources import files
from operator import or_
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from onnxcomp.driver.registry import PASSES
from onnxcomp.passes.quantize.sensitivity_file import SensitivityFile
from onnxcomp.recipe import Recipe
from onnxcomp.report.comparison import ModelComparison
from onnxcomp.report.structures import Report

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PLANS: Any = reduce(or_, (make.plan_type for make in PASSES.values()))  # type: ignore[attr-defined]

SUBJECTS: dict[str, Any] = {
    "recipe": Recipe,
    "plan": PLANS,
    "sensitivity": SensitivityFile,
    "report": Report,
    "comparison": ModelComparison,
}


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema of one of `SUBJECTS`, as a file of that kind has to be."""
    made = TypeAdapter(SUBJECTS[name]).json_schema(by_alias=True, mode="validation")
    return {"$schema": DIALECT, **made, "title": f"onnxcomp {name}"}


def text(name: str) -> str:
    """The schema as it is shipped."""
    return json.dumps(schema(name), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    for subject in SUBJECTS:
        path = Path(str(files("onnxcomp") / "recipes" / "schemas" / f"{subject}.json"))
        path.write_text(text(subject), encoding="utf-8")
