"""What is there twice: equal constants, and equal nodes on equal inputs."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import onnx_ir as ir

from onnxcomp.ops.attributes import PLAIN_ATTRIBUTES, is_constant, is_standard
from onnxcomp.ops.draws import RANDOM
from onnxcomp.passes.simplify.edits import Finding, Scope, bypass, can_bypass, edit

_PREFIX = 1024
_SMALL = 16


def share_equal(model: ir.Model, scope: Scope) -> Iterator[Finding]:
    """Keeps the first of several equal initializers, and of several equal nodes, in place."""
    _share_initializers(model.graph)
    first: dict[Hashable, ir.Node] = {}
    for node in tuple(model.graph):
        key = _identity(node)
        if key is None or node.name in scope.excluded:
            continue
        kept = first.setdefault(key, node)
        if kept is not node and _merge(node, kept):
            yield edit(node, "merged", f"{kept.name} computes the same")


def _merge(node: ir.Node, kept: ir.Node) -> bool:
    """Lets the readers of `node` read `kept`; False where that would rename an output of the graph."""
    if len(node.outputs) == 1 and can_bypass(node, kept.outputs[0]):
        bypass(node, kept.outputs[0])
        return True
    if any(v.is_graph_output() for v in node.outputs):
        return False
    for mine, other in zip(node.outputs, kept.outputs, strict=True):
        mine.replace_all_uses_with(other)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
    return True


def _identity(node: ir.Node) -> Hashable | None:
    """Equal for nodes that compute the same; None where that can't be said.

    Custom operators may keep a state, or draw random numbers.
    """
    if not is_standard(node) or node.op_type in RANDOM:
        return None
    attributes: list[Hashable] = []
    for name, attribute in sorted(node.attributes.items()):
        content = _content(attribute)
        if content is None:
            return None
        attributes.append((name, content))
    given_out = tuple(bool(v.name) for v in node.outputs)
    return node.op_type, tuple(id(v) for v in node.inputs), given_out, tuple(attributes)


def _content(attribute: ir.Attr) -> Hashable | None:
    """None for graphs, and for tensors that are too large to be compared in passing."""
    if attribute.type in PLAIN_ATTRIBUTES:
        return repr(attribute.value)
    tensor = attribute.as_tensor() if attribute.type == ir.AttributeType.TENSOR else None
    if tensor is None or tensor.size > _SMALL or tensor.dtype == ir.DataType.STRING:
        return None
    return tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes()


def _share_initializers(graph: ir.Graph) -> None:
    """Compares the bytes of those only that agree in dtype, shape and their first elements."""
    alike: dict[Hashable, list[ir.Value]] = {}
    for value in tuple(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or not is_constant(value) or value.is_graph_output() or tensor.dtype == ir.DataType.STRING:
            continue
        key = (tensor.dtype, tuple(tensor.shape.numpy()), tensor.numpy().reshape(-1)[:_PREFIX].tobytes())
        group = alike.setdefault(key, [])
        for kept in group:
            if kept.const_value is tensor or tensor.size <= _PREFIX or _same_bytes(kept, value):
                value.replace_all_uses_with(kept)
                del graph.initializers[value.name or ""]
                break
        else:
            group.append(value)


def _same_bytes(a: ir.Value, b: ir.Value) -> bool:
    assert a.const_value is not None
    assert b.const_value is not None
    return a.const_value.tobytes() == b.const_value.tobytes()
