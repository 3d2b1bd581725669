"""Second moments of what products read, on feeds to learn from and on others to judge by: once for each input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.gram import Gram
from onnxcomp.calibration.readers import Reader
from onnxcomp.calibration.second_moments import Wanted, gather
from onnxcomp.passes.base import Context
from onnxcomp.passes.products import Product
from onnxcomp.passes.weight_only.blocks import Array

LARGEST_K = 4096
"""Columns of a layer that GPTQ takes: H and its inverse then hold 128 MiB each."""

MOMENT_BYTES = 1 << 30
"""Of second moments held at a time; more takes further passes over the feeds."""

FEWEST_ROWS, ROWS_FOR_EACH = 4096, 8
"""Rows to gather: so many for each column, but not fewer than the first."""


@dataclass(frozen=True)
class Inputs:
    """What the nodes of a product read: equal for products that read the same values."""

    names: tuple[str, ...]

    @staticmethod
    def of(product: Product) -> Inputs:
        return Inputs(tuple(dict.fromkeys(view.input.name or "" for view in product.views)))


def in_parts(products: Iterable[Product]) -> Iterator[list[Product]]:
    """Products whose moments fit into memory together, those that read the same values in one part."""
    groups: dict[Inputs, list[Product]] = {}
    for product in products:
        groups.setdefault(Inputs.of(product), []).append(product)
    part: list[Product] = []
    held = 0
    for group in groups.values():
        size = _wanted(group[0]).bytes
        if part and held + size > MOMENT_BYTES:
            yield part
            part, held = [], 0
        part += group
        held += size
    if part:
        yield part


def input_moments(model: ir.Model, part: Iterable[Product], reader: Reader, ctx: Context) -> Mapping[Inputs, Array]:
    """H = E[x·xᵀ] of the inputs of these products, float64 [K, K].

    Raises:
        DataError: The reader gave no feed.
    """
    keys = {Inputs.of(product): product for product in part}
    wants = {"\0".join(key.names): _wanted(product) for key, product in keys.items()}
    grams = gather(
        model,
        wants,
        reader,
        ctx.session,
        seed=ctx.seed,
        progress=lambda seen, total: ctx.progress("watching the layers' inputs", seen, total),
    )
    return {key: _uncentred(grams["\0".join(key.names)]) for key in keys}


def _wanted(product: Product) -> Wanted:
    one_for_each = {view.input.name: view for view in product.views}
    rows = max(FEWEST_ROWS, ROWS_FOR_EACH * product.size[1])
    return Wanted(tuple(one_for_each.values()), "inputs", rows)


def _uncentred(gram: Gram) -> Array:
    return np.asarray(gram.moments(centred=False).xx[0])
