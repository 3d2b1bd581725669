"""The pass: weights of products in 4 or 8 bits, block by block."""

from __future__ import annotations

import onnx_ir as ir

from onnxcomp.errors import PlanError
from onnxcomp.evaluate.sensitivity import Sensitivity
from onnxcomp.model.normalize import clone
from onnxcomp.ops.attributes import is_standard
from onnxcomp.ops.limits import limits_of
from onnxcomp.ops.upgrade import CannotLift, lift
from onnxcomp.passes.base import Context, Evidence, Proof, Survey, header
from onnxcomp.passes.kernel_counts import count_kernels
from onnxcomp.passes.products import OPERATORS, Product, already_quantized, find_products, inside_bodies, skip
from onnxcomp.passes.tables import find_tables, write_tables
from onnxcomp.passes.weight_only.config import Activations, WeightOnlyConfig
from onnxcomp.passes.weight_only.known import Known, held_back
from onnxcomp.passes.weight_only.packing import BLOCKWISE_OPSET
from onnxcomp.passes.weight_only.plan import WeightLayer, WeightOnlyPlan
from onnxcomp.passes.weight_only.relax import relaxed
from onnxcomp.passes.weight_only.write import write_own, write_portable
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import Skip
from onnxcomp.report.text import printable
from onnxcomp.runtime.library import version as ort_version
from onnxcomp.runtime.session import open_session

LEFT_FLOAT = {
    "Conv": "kernels that take weights of a few bits exist for products with a matrix only",
    "ConvTranspose": "kernels that take weights of a few bits exist for products with a matrix only",
    "LSTM": "kernels that take weights of a few bits exist for products with a matrix only; dynamic INT8 takes LSTM",
    "GRU": "kernels that take weights of a few bits exist for products with a matrix only",
    "RNN": "kernels that take weights of a few bits exist for products with a matrix only",
}
"""Heavy operators that this pass never touches, and why."""

FIT = 1.1
"""How much the error of the outputs may grow by int8 activations: the noise of weights in 4 bits drowns theirs."""

NEGLIGIBLE = 1e-3
"""Error of the outputs, as a share of their variance, below which int8 activations are taken anyway."""

HELD = 32
"""Feeds that the choice of activations is measured on, at most."""


class WeightOnly:
    """Weights of Gemm and MatMul as integers of 4 or 8 bits with a scale for each block along K."""

    name = "weight-only"
    needs_calibration = False
    plan_type = WeightOnlyPlan

    def __init__(self, config: WeightOnlyConfig | None = None) -> None:
        self.config = config or WeightOnlyConfig()
        self._known: Known | None = None

    def plan(self, model: ir.Model, ctx: Context) -> WeightOnlyPlan:
        """Takes every product with a constant matrix, and chooses its method by what its output loses.

        Raises:
            UsageError: Method gptq without calibration feeds.
        """
        refusal = _not_portable(model) if ctx.portable else None
        if refusal is not None:
            alone = Skip(node="", op_type="", code=Reason.OPSET, sentence=refusal)
            return WeightOnlyPlan(**header(self.name, model, ctx, (alone,)))
        known = self._of(model, ctx)
        config = self.config
        method = config.chosen(ctx.calibration is not None)
        found = known.tried(method, config.bits, config.block, config.symmetric, ctx) if known.products else {}
        layers = tuple(
            WeightLayer(
                name=name,
                op_type=product.op_type,
                nodes=product.nodes,
                out=product.size[0],
                columns=product.size[1],
                bits=config.bits,
                block=config.block,
                method=found[name].method,
                errors=found[name].errors,
                note=found[name].note,
            )
            for name, product in known.products.items()
        )
        plan = WeightOnlyPlan(
            **header(self.name, model, ctx, known.skips),
            layers=layers,
            operators="onnx" if ctx.portable else "onnxruntime",
            symmetric=config.symmetric,
            measured_on=known.measured_on,
            tables=find_tables(model, ctx.only, ctx.exclude) if layers else (),
        )
        activations, why = self._activations(model, plan, ctx)
        return plan.model_copy(update={"activations": activations, "activations_choice": why})

    def apply(self, model: ir.Model, plan: WeightOnlyPlan, ctx: Context) -> ir.Model:
        """Rounds the weights as the plan says, and writes them.

        Raises:
            PlanError: The plan was made for another model.
            UsageError: GPTQ needs calibration feeds, and there are none.
        """
        known = self._of(model, ctx, every=True)
        layers = plan.integer()
        for layer in layers:
            _check(layer, known.products.get(layer.name))
        rounded = known.rounded(layers, plan.symmetric, ctx)
        products = [known.products[layer.name] for layer in layers]
        result = clone(model)
        write_tables(result, plan.tables)
        if plan.operators == "onnx":
            try:
                write_portable(result, products, rounded, symmetric=plan.symmetric)
            except CannotLift as error:
                raise PlanError(f"the plan needs opset {BLOCKWISE_OPSET}: {error}") from error
        else:
            write_own(result, products, rounded, symmetric=plan.symmetric, activations=plan.activations)
        return result

    def prove(self, before: ir.Model, after: ir.Model, plan: WeightOnlyPlan, ctx: Context) -> Proof:
        """ONNX Runtime loads and runs the result, and says which products read integers."""
        counts = count_kernels(after, ctx.session)
        with open_session(after, ctx.session) as session:
            session.run(ctx.feed)
        made, wanted = counts.integer.get("MatMulNBits", 0), len(plan.products())
        sentences = [f"{made} of {wanted} products read integers (MatMulNBits in the optimised graph)", *_summary(plan)]
        return Proof(
            passed=bool(made),
            sentences=tuple(sentences),
            audit=counts.audit(plan.left_alone()),
            unfused=tuple(sorted(plan.products() & counts.float_names)),
        )

    def relax(self, plan: WeightOnlyPlan, evidence: Evidence[WeightOnlyPlan]) -> WeightOnlyPlan | None:
        """The layers that cost most get 8 bits, then become floats again."""
        return relaxed(plan, evidence)

    def survey(self, model: ir.Model, ctx: Context) -> Survey:
        """The products whose weights could be integers; none is rounded."""
        refusal = _not_portable(model) if ctx.portable else None
        if refusal is not None:
            return Survey(frozenset(), (Skip(node="", op_type="", code=Reason.OPSET, sentence=refusal),))
        known = self._of(model, ctx)
        tables = find_tables(model, ctx.only, ctx.exclude) if known.products else ()
        nodes = {node for product in known.products.values() for node in product.nodes}
        return Survey(frozenset(nodes | {*tables}), tuple(known.skips))

    def _of(self, model: ir.Model, ctx: Context, *, every: bool = False) -> Known:
        """What is known of the model; `every`: also of the products that the options leave out, for a plan's sake."""
        if self._known is not None and self._known.model is model and (every or not self._known.every):
            return self._known
        config = self.config
        products, skips = find_products(
            model, *((), ()) if every else (ctx.only, ctx.exclude), 1 if every else config.smallest
        )
        short = [] if every else [p for p in products if p.size[1] < config.block]
        sentence = f"fewer inputs than a block holds ({config.block})"
        skips += [skip(view.node, Reason.TOO_SMALL, sentence) for p in short for view in p.views]
        skips += [
            skip(node, Reason.NO_INTEGER_KERNEL, LEFT_FLOAT[node.op_type])
            for node in model.graph
            if node.op_type in LEFT_FLOAT and is_standard(node)
        ]
        skips += inside_bodies(model, OPERATORS | LEFT_FLOAT.keys())
        kept = {p.name: p for p in products if p not in short}
        self._known = Known(model, kept, skips + ([] if kept else already_quantized(model)), every)
        return self._known

    def _activations(self, model: ir.Model, plan: WeightOnlyPlan, ctx: Context) -> tuple[Activations, str]:
        """What the kernel multiplies with, and why."""
        if plan.operators == "onnx":
            return "int8", (
                "the file can't say; ONNX Runtime takes int8 unless session.qdq_matmulnbits_accuracy_level says 1"
            )
        if self.config.activations != "auto":
            return self.config.activations, "as asked"
        if ctx.calibration is None or not plan.layers:
            return "float", "without calibration feeds the error of int8 can't be measured"
        judge = Sensitivity(model, held_back(ctx.calibration), ctx.session, HELD)
        kinds: tuple[Activations, ...] = ("float", "int8")
        floats, integers = (
            judge.error(self.apply(model, plan.model_copy(update={"activations": kind}), ctx)) for kind in kinds
        )
        figures = f"error of the outputs {integers:.3g} with int8, {floats:.3g} with floats"
        return ("int8" if integers <= max(FIT * floats, NEGLIGIBLE) else "float"), figures


def _summary(plan: WeightOnlyPlan) -> list[str]:
    """What was chosen, in sentences."""
    layers = plan.integer()
    if not layers:
        return []
    methods = sorted({layer.method for layer in layers})
    counts = ", ".join(f"{sum(layer.method == m for layer in layers)} by {m}" for m in methods)
    mean = sum(layer.errors.get(layer.method, 0.0) for layer in layers) / len(layers)
    sentences = [f"{plan.aim()}: {counts}; mean error of {plan.measured_on}: {mean:.2g}"]
    sentences.append(f"activations: {plan.activations} ({plan.activations_choice})")
    if plan.tables:
        sentences.append(f"embedding tables read as int8 rows, with a scale for each: {len(plan.tables)}")
    notes = sorted({layer.note for layer in layers if layer.note})
    return sentences + [f"{sum(x.note == note for x in layers)} layers: {note}" for note in notes]


def _not_portable(model: ir.Model) -> str | None:
    """Why the model can't have blockwise integers in ONNX's own operators."""
    newest = limits_of(ort_version()).opset
    if newest < BLOCKWISE_OPSET:
        return f"blockwise integers need opset {BLOCKWISE_OPSET}; ONNX Runtime {ort_version()} loads up to {newest}"
    try:
        lift(clone(model), BLOCKWISE_OPSET)
    except CannotLift as error:
        return f"blockwise integers need opset {BLOCKWISE_OPSET}: {error}"
    return None


def _check(layer: WeightLayer, product: Product | None) -> None:
    if product is None or product.size != (layer.out, layer.columns) or product.nodes != layer.nodes:
        raise PlanError(
            f"the plan's layer {printable(layer.name)!r} of {layer.out} × {layer.columns} is not in this model",
            hint="make a new plan with --dry-run",
        )
