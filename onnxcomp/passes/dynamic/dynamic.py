"""The pass: int8 weights, activations quantised at run time."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from onnxcomp.errors import PlanError
from onnxcomp.model.normalize import clone
from onnxcomp.ops.attributes import constant, is_standard
from onnxcomp.passes.base import Context, Evidence, Proof, header
from onnxcomp.passes.dynamic.config import DynamicConfig
from onnxcomp.passes.dynamic.plan import DynamicLayer, DynamicPlan
from onnxcomp.passes.dynamic.products import write_products
from onnxcomp.passes.dynamic.recurrent import Recurrent, find_recurrent, write_recurrent
from onnxcomp.passes.dynamic.relax import relaxed
from onnxcomp.passes.kernel_counts import count_kernels
from onnxcomp.passes.products import (
    OPERATORS,
    Product,
    already_quantized,
    drop_unread,
    find_products,
    inside_bodies,
    skip,
)
from onnxcomp.passes.tables import find_tables, write_tables
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import Skip
from onnxcomp.report.text import printable
from onnxcomp.runtime.session import open_session

LEFT_FLOAT: dict[str, tuple[Reason, str]] = {
    "Conv": (
        Reason.KEPT_FLOAT,
        "ConvInteger was measured at 0.13 to 0.24 × the speed of float; static INT8 is what makes convolutions faster",
    ),
    "ConvTranspose": (Reason.NO_INTEGER_KERNEL, "ONNX has no ConvTranspose of integers"),
    "GRU": (Reason.NO_INTEGER_KERNEL, "ONNX Runtime has a dynamic integer kernel for LSTM, and none for GRU"),
    "RNN": (Reason.NO_INTEGER_KERNEL, "ONNX Runtime has a dynamic integer kernel for LSTM, and none for RNN"),
}
"""Heavy operators that this pass never touches, and why."""

LONGEST = 1 << 16
"""Inputs of one product: sums of so many products of 8 bits still fit 32 bits."""

FIRST_OPSET = 11
"""The first with DynamicQuantizeLinear."""


class Dynamic:
    """Dynamic INT8: Gemm, MatMul and LSTM with int8 weights per output, activations as uint8 by the range of each
    call; embedding tables beside them as int8 rows."""

    name = "dynamic"
    needs_calibration = False
    plan_type = DynamicPlan

    def __init__(self, config: DynamicConfig | None = None) -> None:
        self.config = config or DynamicConfig()

    def plan(self, model: ir.Model, ctx: Context) -> DynamicPlan:
        """Takes every product and LSTM with constant weights; nothing is measured."""
        opset = model.opset_imports.get("", 0)
        if opset < FIRST_OPSET:
            sentence = f"needs opset {FIRST_OPSET}; the model has {opset} and could not be lifted"
            alone = Skip(node="", op_type="", code=Reason.OPSET, sentence=sentence)
            return DynamicPlan(**header(self.name, model, ctx, (alone,)))
        products, skips = self._products(model, ctx)
        recurrent, more = find_recurrent(model, ctx.only, ctx.exclude, self.config.smallest, portable=ctx.portable)
        skips += more
        skips += [skip(n, *LEFT_FLOAT[n.op_type]) for n in model.graph if n.op_type in LEFT_FLOAT and is_standard(n)]
        skips += inside_bodies(model, OPERATORS | {"LSTM"} | LEFT_FLOAT.keys())
        if not products and not recurrent:
            skips += already_quantized(model)
        layers = [
            *(DynamicLayer(name=p.name, op_type=p.op_type, nodes=p.nodes, elements=p.elements) for p in products),
            *(
                DynamicLayer(name=r.node.name or "", op_type="LSTM", nodes=(r.node.name or "",), elements=r.elements)
                for r in recurrent
            ),
        ]
        if layers:
            tables = find_tables(model, ctx.only, ctx.exclude)
            layers += [_table(node) for node in model.graph if node.name in tables]
        order = {node.name: i for i, node in enumerate(model.graph)}
        layers.sort(key=lambda layer: order[layer.name])
        return DynamicPlan(
            **header(self.name, model, ctx, skips),
            layers=tuple(layers),
            operators="onnx" if ctx.portable else "onnxruntime",
            pairs_saturate=ctx.target.pairs_saturate,
        )

    def apply(self, model: ir.Model, plan: DynamicPlan, ctx: Context) -> ir.Model:
        """Writes the plan; needs no data.

        Raises:
            PlanError: The plan was made for another model.
        """
        result = clone(model)
        portable = plan.operators == "onnx"
        wanted = {layer.name for layer in plan.integer()}
        # What the plan says counts, not what would be found today.
        products = {p.name: p for p in find_products(result, (), (), 1)[0] if p.name in wanted}
        recurrent = {r.node.name or "": r for r in find_recurrent(result, (), (), 1, portable=portable)[0]}
        tables = {name for name in find_tables(result, (), ()) if name in wanted}
        _check(plan, products, recurrent, tables)
        write_products(result, list(products.values()), portable=portable, pairs_saturate=plan.pairs_saturate)
        for name in wanted & recurrent.keys():
            write_recurrent(result.graph, recurrent[name], pairs_saturate=plan.pairs_saturate)
        write_tables(result, tuple(tables))
        drop_unread(result.graph)
        if not portable:
            result.opset_imports.setdefault("com.microsoft", 1)
        result.graph.sort()
        return result

    def prove(self, before: ir.Model, after: ir.Model, plan: DynamicPlan, ctx: Context) -> Proof:
        """ONNX Runtime loads and runs the result, and says which nodes it runs in integers."""
        counts = count_kernels(after, ctx.session)
        with open_session(after, ctx.session) as session:
            session.run(ctx.feed)
        integer = sum(counts.integer.values())
        sentences = [f"{integer} integer kernels in the optimised graph, {sum(counts.floats.values())} heavy in float"]
        tables = sum(layer.op_type == "Gather" for layer in plan.integer())
        if tables:
            sentences.append(f"embedding tables read as int8 rows, with a scale for each: {tables}")
        if counts.integer:
            sentences.append("each call quantises its activations by their own range, over the whole batch")
        return Proof(
            passed=bool(integer),
            sentences=tuple(sentences),
            audit=counts.audit(plan.left_alone()),
            unfused=tuple(sorted(plan.changes() & counts.float_names)),
        )

    def relax(self, plan: DynamicPlan, evidence: Evidence[DynamicPlan]) -> DynamicPlan | None:
        """The layers that cost most, or gain least, compute in float again."""
        return relaxed(plan, evidence)

    def _products(self, model: ir.Model, ctx: Context) -> tuple[list[Product], list[Skip]]:
        products, skips = find_products(model, ctx.only, ctx.exclude, self.config.smallest)
        long = [p for p in products if p.size[1] > LONGEST]
        sentence = f"sums of more than {LONGEST} products may not fit 32 bits"
        skips += [skip(v.node, Reason.UNSUPPORTED_FORM, sentence) for p in long for v in p.views]
        return [p for p in products if p.size[1] <= LONGEST], skips


def _table(node: ir.Node) -> DynamicLayer:
    table = constant(node.inputs[0])
    assert table is not None
    name = node.name or ""
    return DynamicLayer(name=name, op_type=node.op_type, nodes=(name,), elements=table.size)


def _check(
    plan: DynamicPlan, products: dict[str, Product], recurrent: dict[str, Recurrent], tables: Collection[str]
) -> None:
    for layer in plan.integer():
        product, site = products.get(layer.name), recurrent.get(layer.name)
        elements = product.elements if product else site.elements if site else 0
        nodes = product.nodes if product else (layer.name,)
        if layer.name not in tables and (elements != layer.elements or nodes != layer.nodes):
            raise PlanError(
                f"the plan's layer {printable(layer.name)!r} can't be quantised dynamically in this model",
                hint="make a new plan with --dry-run",
            )
