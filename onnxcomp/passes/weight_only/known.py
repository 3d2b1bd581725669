"""What is found out about a model once: its products, and their matrices as integers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from onnxcomp.calibration.readers import Reader
from onnxcomp.calibration.split import hold_out
from onnxcomp.errors import UsageError
from onnxcomp.passes.base import CALIBRATION_HINT, Context
from onnxcomp.passes.products import Product
from onnxcomp.passes.weight_only.blocks import Array, Rounded
from onnxcomp.passes.weight_only.config import Bits, Method
from onnxcomp.passes.weight_only.moments import LARGEST_K, Inputs, in_parts, input_moments
from onnxcomp.passes.weight_only.plan import WeightLayer
from onnxcomp.passes.weight_only.rounding import energy, output_error, round_matrix
from onnxcomp.report.structures import Skip


@dataclass(frozen=True)
class Tried:
    """How a layer is best rounded.

    Args:
        errors: See `WeightLayer`; `note`: why the method is not the one that was asked for.
    """

    method: Method
    errors: dict[Method, float]
    note: str = ""


@dataclass
class Known:
    """What was found out about a model.

    Args:
        products: By name; `every`: with those that the options leave out.
        measured_on: What errors are measured on, in words.
    """

    model: ir.Model
    products: dict[str, Product]
    skips: list[Skip]
    every: bool = False
    measured_on: str = "the weights"
    _rounded: dict[tuple[str, Method, Bits, int, bool], Rounded] = field(default_factory=dict)

    def tried(self, method: Method, bits: Bits, block: int, symmetric: bool, ctx: Context) -> dict[str, Tried]:
        """The method for each product: GPTQ only where it errs less on held-back feeds than MSE does.

        Raises:
            UsageError: GPTQ without calibration feeds.
        """
        if method != "gptq":
            return {
                name: Tried(method, {method: self._error(self._made(p, method, bits, block, symmetric, None), p)})
                for name, p in self.products.items()
            }
        if ctx.calibration is None:
            raise UsageError("method gptq can't be had without calibration data", hint=CALIBRATION_HINT)
        learn, held, told = hold_out(ctx.calibration)
        self.measured_on = (
            f"{held.count} feeds that were not learned from" if told is None else "the feeds learned from"
        )
        found: dict[str, Tried] = {}
        for part in in_parts(p for p in self.products.values() if p.size[1] <= LARGEST_K):
            taught = input_moments(self.model, part, learn, ctx)
            judged = taught if told is not None else input_moments(self.model, part, held, ctx)
            for product in part:
                ctx.progress("rounding layers", len(found), len(self.products))
                moments = taught[Inputs.of(product)], judged[Inputs.of(product)]
                found[product.name] = self._better(product, bits, block, symmetric, *moments)
        for name, product in self.products.items():
            if name not in found:
                mse = self._error(self._made(product, "mse", bits, block, symmetric, None), product)
                found[name] = Tried(
                    "mse", {"mse": mse}, f"K = {product.size[1]} is more than {LARGEST_K}, too many for gptq"
                )
        return found

    def rounded(self, layers: Iterable[WeightLayer], symmetric: bool, ctx: Context) -> dict[str, Rounded]:
        """The integers of these layers, by name; those of GPTQ are made again from the same feeds where need be.

        Raises:
            UsageError: They need calibration feeds, and there are none.
        """
        keys = {x.name: (x.name, x.method, x.bits, x.block, symmetric) for x in layers if x.bits is not None}
        missing = [self.products[n] for n, key in keys.items() if key[1] == "gptq" and key not in self._rounded]
        if missing and ctx.calibration is None:
            raise UsageError("a plan of method gptq can't be applied without data", hint=CALIBRATION_HINT)
        for part in in_parts(missing):
            assert ctx.calibration is not None
            taught = input_moments(self.model, part, hold_out(ctx.calibration)[0], ctx)
            for product in part:
                _, method, bits, block, _ = keys[product.name]
                self._made(product, method, bits, block, symmetric, taught[Inputs.of(product)])
        found = {}
        for name, (_, method, bits, block, _) in keys.items():
            made = self._made(self.products[name], method, bits, block, symmetric, None)
            # With other feeds than those that the plan was made with, GPTQ may fail where it did not.
            found[name] = made or self._made(self.products[name], "mse", bits, block, symmetric, None)
        return {name: made for name, made in found.items() if made is not None}

    def _better(self, product: Product, bits: Bits, block: int, symmetric: bool, taught: Array, judged: Array) -> Tried:
        errors: dict[Method, float] = {}
        methods: Sequence[Method] = ("mse", "gptq")
        matrix = product.matrix()
        whole = energy(matrix, judged)
        for method in methods:
            made = self._made(product, method, bits, block, symmetric, taught)
            if made is not None:
                errors[method] = output_error(matrix, made.dense(), judged, whole)
        if "gptq" not in errors:
            return Tried("mse", errors, "its inputs never vary, so gptq can't be had")
        better = errors["gptq"] < errors["mse"]
        self._rounded.pop((product.name, "mse" if better else "gptq", bits, block, symmetric))
        if better:
            return Tried("gptq", errors)
        return Tried("mse", errors, "gptq does not lower the error of its output on held-back feeds")

    def _made(
        self, product: Product, method: Method, bits: Bits, block: int, symmetric: bool, moments: Array | None
    ) -> Rounded | None:
        key = (product.name, method, bits, block, symmetric)
        if key not in self._rounded:
            made = round_matrix(product.matrix(), method, bits, block, symmetric=symmetric, moments=moments)
            if made is None:
                return None
            self._rounded[key] = made
        return self._rounded[key]

    @staticmethod
    def _error(made: Rounded | None, product: Product) -> float:
        """Of the weights."""
        return 1.0 if made is None else output_error(product.matrix(), made.dense(), None)


def held_back(reader: Reader) -> Reader:
    """The feeds that nothing is learned from; all of them where they are few."""
    return hold_out(reader)[1]
