"""A recipe as data: ordered pass configs and gates, in TOML. Nothing in a recipe names code."""

from __future__ import annotations

import os
import tomllib
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from onnxcomp.errors import RecipeError
from onnxcomp.passes.dynamic.config import DynamicConfig
from onnxcomp.passes.factorize.config import FactorizeConfig
from onnxcomp.passes.precision.precision import PrecisionConfig
from onnxcomp.passes.prune.config import PruneConfig
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.simplify.simplify import SimplifyConfig
from onnxcomp.passes.weight_only.config import WeightOnlyConfig
from onnxcomp.report.structures import Record
from onnxcomp.report.text import complaint, meant

Step = Annotated[
    SimplifyConfig
    | PruneConfig
    | FactorizeConfig
    | QuantizeConfig
    | DynamicConfig
    | WeightOnlyConfig
    | PrecisionConfig,
    Field(discriminator="kind"),
]
SCHEMA: Final = "onnxcomp-recipe/1"
DEFAULT = "default"


class GateConfig(Record):
    """Gates of every step; what the command line sets takes precedence."""

    min_cosine: float | None = Field(default=None, ge=0, le=1)
    max_drop: float | None = None


class Recipe(Record):
    """Ordered steps behind gates."""

    schema_: Literal["onnxcomp-recipe/1"] = Field(default=SCHEMA, alias="schema")
    step: tuple[Step, ...]
    gates: GateConfig = GateConfig()

    model_config = Record.model_config | {"populate_by_name": True}

    def canonical(self) -> str:
        """The same text for the same recipe, for its digest."""
        return self.model_dump_json(by_alias=True)


def shipped() -> dict[str, str]:
    """The recipes that come with the package, as TOML by name; the default comes first."""
    folder = files("onnxcomp") / "recipes"
    texts = {f.name.removesuffix(".toml"): f.read_text("utf-8") for f in folder.iterdir() if f.name.endswith(".toml")}
    return dict(sorted(texts.items(), key=lambda item: (item[0] != DEFAULT, item[0])))


def shipped_text(name: str) -> str:
    """A shipped recipe as TOML.

    Raises:
        RecipeError: There is none of that name; suggests the nearest.
    """
    texts = shipped()
    if name not in texts:
        raise RecipeError(f"no recipe {name!r} is shipped", hint=meant(name, texts) or f"there are {', '.join(texts)}")
    return texts[name]


def load_recipe(source: str | os.PathLike[str] | None) -> Recipe:
    """Reads a recipe: a shipped one by its name, or a file; None gives the default.

    A bare word is a shipped recipe first; a file of that name is `./word`.

    Raises:
        RecipeError: Not found, not TOML, or not a recipe; names the path inside it and the nearest key.
    """
    name = DEFAULT if source is None else os.fspath(source)
    texts = shipped()
    if name in texts:
        return parse_recipe(texts[name], name)
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a text file"
        hint = meant(name.removesuffix(".toml"), texts) or f"a file, or one of those shipped: {', '.join(texts)}"
        raise RecipeError(f"recipe {name}: {reason}", hint=hint) from error
    return parse_recipe(text, name)


def parse_recipe(text: str, name: str) -> Recipe:
    """The recipe in a TOML text.

    >>> parse_recipe('[[step]]\\npass = "quantize"\\nranges = "minmax"', "example").step[0].ranges
    'minmax'
    """
    try:
        return Recipe.model_validate(tomllib.loads(text))
    except RecursionError as error:
        raise RecipeError(f"recipe {name}: nested too deep") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {name} is not TOML: {error}") from error
    except ValidationError as error:
        details = error.errors()
        lines = [f"{_where(d['loc'])}: {_message(d)}" for d in details]
        hints = [meant(str(d["ctx"]["tag"]), _configs()) for d in details if d["type"] == "union_tag_invalid"]
        steps = [d["input"] for d in details if d["type"] == "union_tag_not_found"]
        slips = [key for step in steps if isinstance(step, dict) for key in get_close_matches("pass", step, 1)]
        hints += [f"did you mean 'pass' where it says {key!r}?" for key in slips]
        hints += [near for d in details if d["type"] == "extra_forbidden" and (near := _nearest(d["loc"]))]
        raise RecipeError(f"recipe {name}: " + "; ".join(lines), hint=hints[0] if hints else None) from error


def _where(location: tuple[int | str, ...]) -> str:
    """`step[0].ranges` from pydantic's ("step", 0, "quantize", "ranges")."""
    parts = [p for i, p in enumerate(location) if not (i == 2 and location[0] == "step")]
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".") or "the recipe"


def _message(detail: ErrorDetails) -> str:
    if detail["type"] == "union_tag_invalid":
        return f"there is no pass {detail['ctx']['tag']!r}; there are {', '.join(_configs())}"
    if detail["type"] == "union_tag_not_found":
        return 'it names no pass: a step begins with pass = "quantize" or another'
    return complaint(detail["msg"])


def _configs() -> dict[str, type[BaseModel]]:
    return {c.model_fields["kind"].default: c for c in get_args(get_args(Step)[0])}


def _nearest(location: tuple[int | str, ...]) -> str | None:
    model: type[BaseModel] = Recipe
    if location[0] == "step" and len(location) > 3:
        model = _configs().get(str(location[2]), Recipe)
    elif location[0] == "gates" and len(location) > 1:
        model = GateConfig
    return meant(str(location[-1]), [field.alias or name for name, field in model.model_fields.items()])
