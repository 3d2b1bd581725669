"""The tensors of a model: found, replaced, hashed. What `load` and `save` share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import onnx_ir as ir

from onnxcomp.errors import ModelError

_BLOCK = 1 << 20

Replace = Callable[[ir.TensorProtocol], ir.TensorProtocol]


def initializers_of(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """The tensors of the initializers of every graph; a shared one comes once for each use."""
    for value in _initializers(model):
        if value.const_value is not None:
            yield value.const_value


def tensors_of(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """The initializers, then tensors in attributes of nodes, those in function bodies included."""
    yield from initializers_of(model)
    for node in _nodes(model):
        for attribute in node.attributes.values():
            if not attribute.is_ref() and attribute.type == ir.AttributeType.TENSOR:
                yield attribute.as_tensor()
            elif not attribute.is_ref() and attribute.type == ir.AttributeType.TENSORS:
                yield from attribute.as_tensors()


def data_paths(model: ir.Model) -> frozenset[Path]:
    """Absolute paths of the data files that the tensors of the model are read from."""
    return frozenset(Path(os.path.abspath(t.path)) for t in tensors_of(model) if isinstance(t, ir.ExternalTensor))


def with_tensors(model: ir.Model, initializer: Replace, attribute: Replace) -> ir.Model:
    """A copy of the model with other tensors; the argument is not changed, what is not replaced is shared.

    Args:
        model: Its nodes in topological order.
        initializer: Gives the tensor that takes the place of an initializer's.
        attribute: The same for tensors in attributes of nodes.

    Raises:
        ModelError: The model can't be copied.
    """
    try:
        copy = model.clone()
    except RuntimeError as error:
        raise ModelError(
            "the graph can't be copied: a node reads a value that no node before it makes",
            hint="Sort it first, with model.graph.sort(); if that does not help, a value has no producer.",
        ) from error
    for value in _initializers(copy):
        if value.const_value is not None:
            value.const_value = _named(initializer(value.const_value), value.name or "")
    for node in _nodes(copy):
        for name, attr in list(node.attributes.items()):
            if attr.is_ref():
                continue
            if attr.type == ir.AttributeType.TENSOR:
                node.attributes[name] = ir.AttrTensor(name, attribute(attr.as_tensor()), doc_string=attr.doc_string)
            elif attr.type == ir.AttributeType.TENSORS:
                tensors = [attribute(tensor) for tensor in attr.as_tensors()]
                node.attributes[name] = ir.AttrTensors(name, tensors, doc_string=attr.doc_string)
    return copy


def content_sha256(graph: bytes, files: Iterable[Path]) -> str:
    """SHA-256 over the graph file, then each data file: what `cat model.onnx model.data | sha256sum` prints.

    Args:
        graph: Content of the graph file.
        files: Data files, in order of location.
    """
    digest = hashlib.sha256(graph)
    for path in files:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


class Sink(Protocol):
    """What takes the bytes of a tensor."""

    def write(self, data: bytes, /) -> int: ...


def write_tensor(tensor: ir.TensorProtocol, sink: Sink) -> None:
    """Writes the bytes of a tensor as they lie in a file; what is in a data file goes in blocks, not through memory."""
    if isinstance(tensor, ir.ExternalTensor):
        tensor.tofile(sink)
    else:
        sink.write(tensor.tobytes())


def _named(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """The tensor under its value's name. onnx-ir would write the name into the tensor, which the original shares."""
    if tensor.name == name:
        return tensor
    if tensor.dtype == ir.DataType.STRING:
        return ir.StringTensor(tensor.numpy(), shape=_shape(tensor), name=name)
    if isinstance(tensor, ir.ExternalTensor):
        return ir.ExternalTensor(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=tensor.shape,
            name=name,
            base_dir=tensor.base_dir,
        )
    return ir.LazyTensor(lambda: tensor, tensor.dtype, _shape(tensor), name=name)


def _shape(tensor: ir.TensorProtocol) -> ir.Shape:
    return ir.Shape(tensor.shape.numpy())


def _roots(model: ir.Model) -> Iterator[ir.Graph | ir.Function]:
    yield model.graph
    yield from model.functions.values()


def _initializers(model: ir.Model) -> Iterator[ir.Value]:
    for root in _roots(model):
        for graph in (root, *root.subgraphs()):
            if isinstance(graph, ir.Graph):
                yield from graph.initializers.values()


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    for root in _roots(model):
        yield from root.all_nodes()
