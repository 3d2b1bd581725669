"""Between bytes, protobuf and onnx-ir, with every failure as a sentence about the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

from onnxcomp.errors import ModelError
from onnxcomp.report.text import printable

T = TypeVar("T")

_MAX_PROTO = 2**31 - 1


def to_ir(proto: onnx.ModelProto, *, sort: bool = False) -> ir.Model:
    """The model as onnx-ir; its tensors refer to those of `proto`.

    Args:
        proto: A model that passed `preflight`.
        sort: Puts the nodes of every graph in topological order.

    Raises:
        ModelError: Something in it has no meaning.
    """
    model: ir.Model = _attempt(lambda: ir.from_proto(proto))
    bodies: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for body in bodies:
        # "ai.onnx" is another name of the default domain; onnx-ir turns it into "" for nodes, but not for imports.
        if "ai.onnx" in body.opset_imports:
            body.opset_imports[""] = body.opset_imports.pop("ai.onnx")
        if sort:
            body.sort()
    for value in (*model.graph.inputs, *model.graph.outputs):
        _forget_negative_dims(value)
    return model


def _forget_negative_dims(value: ir.Value) -> None:
    """PaddlePaddle's exporters write −1 for a dynamic dimension, which is no size; ONNX leaves it out."""
    if value.shape is not None and any(isinstance(d, int) and d < 0 for d in value.shape):
        value.shape = ir.Shape([None if isinstance(d, int) and d < 0 else d for d in value.shape])


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The model as protobuf.

    Raises:
        ModelError: Something in it can't be written.
    """
    proto: onnx.ModelProto = _attempt(lambda: ir.to_proto(model))
    _forget_told_twice(proto.graph)
    return proto


def _forget_told_twice(graph: onnx.GraphProto) -> None:
    """Types and shapes of initializers, which onnx-ir writes again beside the values inside: the tensors tell them."""
    held = {tensor.name for tensor in graph.initializer}
    kept = [info for info in graph.value_info if info.name not in held or info.doc_string or info.metadata_props]
    if len(kept) < len(graph.value_info):
        del graph.value_info[:]
        graph.value_info.extend(kept)


def to_bytes(proto: onnx.ModelProto) -> bytes:
    """The content of a graph file; the same protobuf gives the same bytes.

    Raises:
        ModelError: Larger than 2 GiB, or nested too deeply.
    """
    try:
        content: bytes = proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ModelError(_TOO_LARGE, hint=_SAVE_EXTERNAL) from error
    if len(content) > _MAX_PROTO:
        raise ModelError(_TOO_LARGE, hint=_SAVE_EXTERNAL)
    return content


def _attempt(convert: Callable[[], T]) -> T:
    # onnx-ir raises many kinds of exceptions over a model without sense; at the door each is the model's fault.
    try:
        return convert()
    except Exception as error:
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        raise ModelError(
            f"the model can't be understood: {printable(root, 300)}",
            hint="Look closer with onnx.checker.check_model, or export it again.",
        ) from error


_TOO_LARGE = "the graph is larger than a protobuf can be (2 GiB), or nested too deeply"
_SAVE_EXTERNAL = "Save it with external data, so that the weights lie beside the graph."
