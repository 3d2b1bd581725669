"""Products with a constant matrix, Gemm and MatMul: which can have integer weights, and why the others can't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxcomp.model.unread import all_finite
from onnxcomp.ops.attributes import constant, is_constant, is_standard, new_initializer, qualified
from onnxcomp.ops.kernels import QUANTIZATION_OPERATORS
from onnxcomp.ops.linear import Array, LinearView, MatrixView
from onnxcomp.passes.selection import no_weight
from onnxcomp.report.reasons import DESCRIPTIONS, Reason
from onnxcomp.report.structures import Skip
from onnxcomp.report.text import printable

OPERATORS = frozenset({"Gemm", "MatMul"})


@dataclass(frozen=True)
class Product:
    """A matrix, and the nodes that multiply by it in the same way.

    Args:
        views: More than one where nodes share the matrix: they then share its integers.
    """

    views: tuple[MatrixView, ...]

    @property
    def name(self) -> str:
        """Of the first node."""
        return self.views[0].node.name or ""

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(view.node.name or "" for view in self.views)

    @property
    def op_type(self) -> str:
        return self.views[0].node.op_type

    @property
    def weight(self) -> str:
        """Name of the initializer."""
        return self.views[0].weight.name or ""

    @property
    def size(self) -> tuple[int, int]:
        """Outputs N and inputs K."""
        _, out, columns = self.views[0].shape
        return out, columns

    @property
    def elements(self) -> int:
        out, columns = self.size
        return out * columns

    def matrix(self) -> Array:
        """W, float32 [N, K], with a Gemm's α in it."""
        return np.asarray(self.views[0].matrix()[0], np.float32)


def find_products(
    model: ir.Model, only: Sequence[str], exclude: Sequence[str], smallest: int
) -> tuple[list[Product], list[Skip]]:
    """All products of the main graph in order, and why the other Gemm and MatMul nodes are none.

    Args:
        smallest: Elements that a matrix must have.
    """
    groups: dict[ir.Value, list[ir.Node]] = {}
    skips: list[Skip] = []
    for node in model.graph:
        if node.op_type not in OPERATORS or not is_standard(node):
            continue
        refusal = _refusal(node, only, exclude, smallest)
        if refusal is not None:
            skips.append(skip(node, *refusal))
        elif (weight := node.inputs[1]) is not None:
            groups.setdefault(weight, []).append(node)
    products: list[Product] = []
    for weight, nodes in groups.items():
        others = _other_readers(weight, nodes)
        if others:
            sentence = f"weight {printable(weight.name or '')!r} is read by {', '.join(others)} too, and would stay"
            skips += [skip(node, Reason.SHARED, sentence) for node in nodes]
        else:
            products += _alike(nodes)
    return products, skips


def skip(node: ir.Node, code: Reason, sentence: str) -> Skip:
    """A node that stays as it is."""
    return Skip(node=node.name or "", op_type=qualified(node), code=code, sentence=sentence)


def inside_bodies(model: ir.Model, operators: frozenset[str]) -> list[Skip]:
    """Nodes of these operators in bodies of If, Loop and Scan."""
    return [
        skip(node, Reason.INSIDE_SUBGRAPH, DESCRIPTIONS[Reason.INSIDE_SUBGRAPH])
        for graph in model.graph.subgraphs()
        if graph is not model.graph
        for node in graph
        if node.op_type in operators and is_standard(node)
    ]


def view_of(node: ir.Node) -> MatrixView | None:
    """The node as y = W·x + b, a weight that other nodes read too included."""
    view = LinearView.of(node, tied=True)
    return view if isinstance(view, MatrixView) else None


def bias_of(graph: ir.Graph, view: MatrixView) -> ir.Value | None:
    """b as an initializer [N], a Gemm's β in it; stored again only where that changes it."""
    offset = view.offset()
    if offset is None or view.bias is None:
        return None
    array = offset.astype(np.float32)
    own = view.bias.const_value
    if own is not None and own.shape == array.shape and np.array_equal(own.numpy(), array):
        return view.bias
    return new_initializer(graph, f"{view.node.name}.bias", array)


def replace_product(graph: ir.Graph, view: MatrixView, made: Sequence[ir.Node]) -> None:
    """Puts nodes in the place of a product and the bias that is added behind it; the last one gives the result."""
    replaced = list(dict.fromkeys([view.node, view.output.producer() or view.node]))
    ir.convenience.replace_nodes_and_values(graph, view.node, replaced, made, [view.output], made[-1].outputs)


def drop_unread(graph: ir.Graph) -> None:
    """Removes the initializers that nothing reads any more."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def already_quantized(model: ir.Model) -> list[Skip]:
    """What says that a model which is quantised has nothing left to quantise; empty for others."""
    present = sorted({n.op_type for n in model.graph.all_nodes() if n.op_type in QUANTIZATION_OPERATORS})
    sentence = f"the model holds {', '.join(present[:4])} already"
    return [Skip(node="", op_type=present[0], code=Reason.ALREADY_QUANTIZED, sentence=sentence)] if present else []


def _refusal(node: ir.Node, only: Sequence[str], exclude: Sequence[str], smallest: int) -> tuple[Reason, str] | None:
    """Why a node is no candidate, judged by itself."""
    refusal = no_weight(node, only, exclude)
    if refusal is not None:
        return refusal
    source, weight = node.inputs[:2]
    assert source is not None
    assert weight is not None
    array = constant(weight)
    assert array is not None
    if array.dtype != np.float32 or source.dtype not in (None, ir.DataType.FLOAT):
        return Reason.NOT_FLOAT32, f"weight {printable(weight.name or '')!r} is {array.dtype}, not float32"
    view = view_of(node)
    if not array.size or view is None or view.input_transposed or is_constant(source):
        return Reason.UNSUPPORTED_FORM, _form(node, array, view)
    if not all_finite(weight):
        return Reason.NOT_FINITE, "its weight holds NaN or infinity"
    if array.size < smallest:
        _, out, columns = view.shape
        return Reason.TOO_SMALL, f"{out} × {columns} weights: fewer than {smallest} are not worth the conversion"
    return None


def _form(node: ir.Node, weight: np.ndarray, view: MatrixView | None) -> str:
    if not weight.size:
        return "its weight is empty"
    if view is not None:
        return "its input is transposed" if view.input_transposed else "its input is a constant"
    if weight.ndim != 2:
        return f"its weight has {weight.ndim} axes; only matrices have such a kernel"
    return "its bias is computed, or not one value for each output"


def _other_readers(weight: ir.Value, nodes: Sequence[ir.Node]) -> list[str]:
    """What else reads the weight, in words."""
    uses = list(weight.uses())
    others = sorted({use.node.op_type for use in uses if use.node not in nodes or use.idx != 1})
    return others + ["an output"] * weight.is_graph_output()


def _alike(nodes: Sequence[ir.Node]) -> list[Product]:
    """Nodes with one weight, by how they read it."""
    found: dict[tuple[bool, float], list[MatrixView]] = {}
    for node in nodes:
        view = view_of(node)
        assert view is not None
        found.setdefault((view.transposed, view.alpha), []).append(view)
    return [Product(tuple(views)) for views in found.values()]
