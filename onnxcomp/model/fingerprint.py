"""A digest of a graph's structure and weights' shapes: what a plan refers to by name must be there again."""

from __future__ import annotations

import hashlib

import onnx_ir as ir

from onnxcomp.ops.attributes import PLAIN_ATTRIBUTES


def structure_sha256(model: ir.Model) -> str:
    """SHA-256 over operators, their attributes and connections, and names, dtypes and shapes of the initializers.

    Values of weights and of other tensors don't count.
    """
    digest = hashlib.sha256()

    def put(*words: object) -> None:
        digest.update(repr(words).encode())

    put("opset", *sorted(model.opset_imports.items()))
    for graph in model.graphs():
        put("graph", [v.name for v in graph.inputs], [v.name for v in graph.outputs])
        for name, value in sorted(graph.initializers.items()):
            tensor = value.const_value
            put("initializer", name, *(() if tensor is None else (tensor.dtype.name, *tensor.shape.numpy())))
        for node in graph:
            put("node", node.domain, node.op_type, node.name)
            put([v.name if v is not None else "" for v in node.inputs], [v.name for v in node.outputs])
            for name, attribute in sorted(node.attributes.items()):
                put(name, attribute.value if attribute.type in PLAIN_ATTRIBUTES else attribute.type.name)
    return digest.hexdigest()
