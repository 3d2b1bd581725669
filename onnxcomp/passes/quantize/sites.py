"""Sites: the places of a graph that have an integer kernel, each with the values it reads and writes in INT8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxcomp.ops.attributes import is_constant, is_standard, qualified
from onnxcomp.ops.clips import activation_bounds
from onnxcomp.ops.kernels import (
    ABSORBED_ACTIVATIONS,
    CPU_KERNELS,
    FUSED_INTO_GEMM,
    HEAVY_OPERATORS,
    KEPT_FLOAT,
    Kernel,
    Role,
)
from onnxcomp.passes.selection import left_out
from onnxcomp.report.reasons import Reason
from onnxcomp.report.structures import Skip
from onnxcomp.report.text import printable


@dataclass(frozen=True)
class Site:
    """One node that can run in INT8, with what it absorbs.

    Args:
        node: The node itself.
        kernel: Its row of the kernel table.
        inputs: Values read as uint8, in the order of the node's inputs.
        outputs: Values written: of the node, or of the last absorbed node.
        weight: The constant weight of a WEIGHTED site; `bias`: its constant bias.
        absorbed: Nodes that vanish into the kernel: a MatMul's bias Add, then a Relu or Clip.
        clip: Bounds that the absorbed activation sets on the output.
        output_quantized: The integer kernel exists only with an integer output.
        alone: It runs in INT8 whatever its neighbours do.
    """

    node: ir.Node
    kernel: Kernel
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    weight: ir.Value | None = None
    bias: ir.Value | None = None
    absorbed: tuple[ir.Node, ...] = ()
    clip: tuple[float, float] | None = None
    output_quantized: bool = True
    alone: bool = False

    @property
    def name(self) -> str:
        return self.node.name or ""

    @property
    def weight_axis(self) -> int:
        assert self.kernel.weight_axis is not None
        return self.kernel.weight_axis(self.node)

    @property
    def weight_key(self) -> str:
        """Name of the weight's entry in a plan: a weight read along two axes has two."""
        assert self.weight is not None
        return f"{self.weight.name}@{self.weight_axis}"


def find_sites(model: ir.Model, only: Sequence[str], exclude: Sequence[str]) -> tuple[list[Site], list[Skip]]:
    """All sites of the main graph in topological order, and why the other heavy or known nodes are none."""
    opset = model.opset_imports.get("", 0)
    sites: list[Site] = []
    skips: list[Skip] = []
    for node in model.graph:
        verdict = _site(node, opset, only, exclude)
        if isinstance(verdict, Site):
            sites.append(verdict)
        elif verdict is not None:
            skips.append(verdict)
    skips.extend(_inside_bodies(model))
    return sites, skips


def _site(node: ir.Node, opset: int, only: Sequence[str], exclude: Sequence[str]) -> Site | Skip | None:
    """A site, a skip with its reason, or None for nodes that nobody would expect in INT8."""
    kernel = CPU_KERNELS.get(node.op_type) if is_standard(node) else None
    if kernel is None:
        return _no_kernel(node)
    reason = left_out(node, only, exclude)
    if reason is not None:
        return _skip(node, reason, "left out by --exclude" if reason is Reason.EXCLUDED else "not matched by --only")
    if opset < kernel.min_opset:
        return _skip(node, Reason.OPSET, f"needs opset {kernel.min_opset}, the model has {opset}")
    refusal = kernel.check(node)
    if refusal is not None:
        return _skip(node, Reason.UNSUPPORTED_FORM, refusal)
    if kernel.role is Role.WEIGHTED:
        return _weighted(node, kernel)
    indices = range(len(node.inputs)) if kernel.data_inputs is None else kernel.data_inputs
    activations = [node.inputs[i] for i in indices if i < len(node.inputs)]
    if any(v is None or v.dtype not in (None, ir.DataType.FLOAT) for v in activations):
        return None  # integer arithmetic on shapes and indices: nothing to say
    constants = [v for v in activations if v is not None and is_constant(v)]
    if len(constants) == len(activations):
        computed = any(v is not None and not is_constant(v) for v in node.inputs)
        return None if computed else _skip(node, Reason.UNSUPPORTED_FORM, "all that it reads is constant")
    if any(v.const_value is not None and v.const_value.size != 1 for v in constants):
        return _skip(
            node, Reason.UNSUPPORTED_FORM, "one operand is a constant array; 8 bits for it would cost accuracy"
        )
    if constants and node.op_type not in ("Add", "Mul"):
        return _skip(node, Reason.UNSUPPORTED_FORM, "one operand is a constant")
    absorbed, outputs, clip = _absorb_activation(node) if node.op_type == "Add" else ((), tuple(node.outputs), None)
    return Site(
        node, kernel, tuple(v for v in activations if v is not None), tuple(outputs), absorbed=absorbed, clip=clip
    )


def _weighted(node: ir.Node, kernel: Kernel) -> Site | Skip:
    source, weight = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if source is None or weight is None:
        return _skip(node, Reason.UNSUPPORTED_FORM, "an input is missing")
    if not is_constant(weight):
        if is_constant(source):
            return _skip(node, Reason.UNSUPPORTED_FORM, "the constant is the first operand")
        produced = weight.producer()
        if node.op_type == "MatMul" and produced is not None:
            return _skip(node, Reason.TWO_ACTIVATIONS, "both operands are computed at run time")
        return _skip(node, Reason.NOT_CONSTANT, f"weight {printable(weight.name or '')!r} is not a constant")
    if weight.const_value is None or weight.const_value.dtype != ir.DataType.FLOAT:
        return _skip(node, Reason.NOT_FLOAT32, f"weight {printable(weight.name or '')!r} is not float32")
    if source.dtype not in (None, ir.DataType.FLOAT):
        return _skip(node, Reason.NOT_FLOAT32, "its input is not float32")
    if is_constant(source):
        return _skip(node, Reason.UNSUPPORTED_FORM, "its input is a constant")
    if weight.const_value.size == 0:
        return _skip(node, Reason.UNSUPPORTED_FORM, "its weight is empty")
    absorbed: tuple[ir.Node, ...] = ()
    last = node
    channels = weight.const_value.numpy().shape[0 if kernel.weight_axis is None else kernel.weight_axis(node)]
    if bias is not None and not _is_channel_vector(bias, channels):
        return _skip(node, Reason.UNSUPPORTED_FORM, "its bias is not one constant for each output channel")
    if node.op_type == "MatMul":
        add = _bias_add(node, channels)
        if add is not None:
            absorbed, last = (add,), add
            bias = next(v for v in add.inputs if v is not None and v is not node.outputs[0])
    more, outputs, clip = _absorb_activation(last)
    activated = bool(more) or any(u.node.op_type in FUSED_INTO_GEMM for u in last.outputs[0].uses())
    # A MatMul with a bias becomes a Gemm where its shapes are static.
    becomes_gemm = node.op_type == "Gemm" or bool(absorbed)
    return Site(
        node,
        kernel,
        (source,),
        outputs,
        weight=weight,
        bias=bias,
        absorbed=(*absorbed, *more),
        clip=clip,
        output_quantized=kernel.output_quantized or (becomes_gemm and activated),
    )


def _absorb_activation(node: ir.Node) -> tuple[tuple[ir.Node, ...], tuple[ir.Value, ...], tuple[float, float] | None]:
    """The Relu or Clip behind `node` if it is its only use and its range holds zero, as (absorbed, outputs, bounds)."""
    output = node.outputs[0]
    follower = _only_use(output)
    if (
        follower is None
        or follower.graph is not node.graph
        or follower.op_type not in ABSORBED_ACTIVATIONS
        or not is_standard(follower)
        or follower.inputs[0] is not output
    ):
        return (), tuple(node.outputs), None
    bounds = activation_bounds(follower)
    if bounds is None or not bounds[0] <= 0.0 < bounds[1]:
        return (), tuple(node.outputs), None
    return (follower,), (follower.outputs[0],), bounds


def _only_use(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def _bias_add(node: ir.Node, channels: int) -> ir.Node | None:
    """The Add of a constant vector behind a MatMul, if it is the MatMul's only use."""
    follower = _only_use(node.outputs[0])
    if follower is None or follower.op_type != "Add" or not is_standard(follower) or follower.graph is not node.graph:
        return None
    other = next((v for v in follower.inputs if v is not node.outputs[0]), None)
    if other is None or not _is_channel_vector(other, channels):
        return None
    # A bias with more axes than the product would add axes to the output; as an integer vector it can't.
    shape = node.outputs[0].shape
    axes = 1 if shape is None else shape.rank()
    return follower if other.const_value is not None and other.const_value.numpy().ndim <= axes else None


def _is_channel_vector(value: ir.Value, channels: int) -> bool:
    if not is_constant(value) or value.const_value is None or value.const_value.dtype != ir.DataType.FLOAT:
        return False
    shape = value.const_value.numpy().shape
    return value.const_value.size == channels and (not shape or shape[-1] == channels)


def _no_kernel(node: ir.Node) -> Skip | None:
    if not is_standard(node):
        return _skip(node, Reason.UNKNOWN_OPERATOR, f"operator {printable(qualified(node))} is outside ai.onnx")
    if node.op_type in KEPT_FLOAT:
        return _skip(node, Reason.KEPT_FLOAT, KEPT_FLOAT[node.op_type])
    if node.op_type in HEAVY_OPERATORS or _holds_weights(node):
        return _skip(node, Reason.NO_INTEGER_KERNEL, f"{node.op_type} has no static integer kernel on the CPU provider")
    return None


def _inside_bodies(model: ir.Model) -> Iterator[Skip]:
    for graph in model.graph.subgraphs():
        if graph is model.graph:
            continue
        for node in graph:
            kernel = CPU_KERNELS.get(node.op_type)
            heavy = node.op_type in HEAVY_OPERATORS or (kernel and kernel.role is Role.WEIGHTED)
            if is_standard(node) and (heavy or _holds_weights(node)):
                yield _skip(node, Reason.INSIDE_SUBGRAPH, "inside the body of an If, Loop or Scan")


def _holds_weights(node: ir.Node) -> bool:
    """Whether it reads a constant of floats that is more than a number."""
    constants = (v.const_value for v in node.inputs if v is not None and is_constant(v))
    return any(c is not None and c.size > 1 and c.dtype.is_floating_point() for c in constants)


def _skip(node: ir.Node, code: Reason, sentence: str) -> Skip:
    return Skip(node=node.name or "", op_type=qualified(node), code=code, sentence=sentence)
