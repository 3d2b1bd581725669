"""The passes by their configs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from onnxcomp.errors import UsageError
from onnxcomp.passes.base import Pass
from onnxcomp.passes.dynamic.config import DynamicConfig
from onnxcomp.passes.dynamic.dynamic import Dynamic
from onnxcomp.passes.factorize.config import FactorizeConfig
from onnxcomp.passes.factorize.factorize import Factorize
from onnxcomp.passes.precision.precision import Precision, PrecisionConfig
from onnxcomp.passes.prune.config import PruneConfig
from onnxcomp.passes.prune.prune import Prune
from onnxcomp.passes.quantize.config import QuantizeConfig
from onnxcomp.passes.quantize.quantize import Quantize
from onnxcomp.passes.simplify.simplify import Simplify, SimplifyConfig
from onnxcomp.passes.weight_only.config import WeightOnlyConfig
from onnxcomp.passes.weight_only.weight_only import WeightOnly

PASSES: dict[type[Any], Callable[[Any], Pass[Any]]] = {
    SimplifyConfig: Simplify,
    PruneConfig: Prune,
    FactorizeConfig: Factorize,
    QuantizeConfig: Quantize,
    DynamicConfig: Dynamic,
    WeightOnlyConfig: WeightOnly,
    PrecisionConfig: Precision,
}

Config = TypeVar("Config", bound=BaseModel)


def pass_of(config: BaseModel) -> Pass[Any]:
    """The pass that a config is of."""
    return PASSES[type(config)](config)


def checked(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """Checked options of a pass; a UsageError names the option whose value is out of its range."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name, *inside = [str(part) for part in first["loc"]] or [""]
        where = f"{name}.{inside[0]}: " if name == "ratios" and inside else f"--{name.replace('_', '-')}: " * bool(name)
        told = first["msg"].removeprefix("Value error, ")
        raise UsageError(where + told[:1].lower() + told[1:]) from error
