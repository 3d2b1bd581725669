"""A digest of a graph's structure and weights' shapes: what a plan refers to by name must be there again."""

from __future__ import annotations

import hashlib

import onnx_ir as ir


def structure_sha256(model: ir.Model) -> str:
    """SHA-256 over operators, attributes' names, connections, and names, dtypes and shapes of the initializers. Weights' values don't count."""
    digest = hashlib.sha256()

    def put(*words: object) -> None:
        digest.update("\x1f".join(str(w) for w in words).encode() + b"\x1e")

    for graph in model.graphs():
        put("graph", *(v.name for v in graph.inputs), "->", *(v.name for v in graph.outputs))
        for name, value in sorted(graph.initializers.items()):
            tensor = value.const_value
            put("initializer", name, *(() if tensor is None else (tensor.dtype, *tensor.shape.numpy())))
        for node in graph:
            put(
                "node",
                node.domain,
                node.op_type,
                node.name,
                *(v.name if v is not None else "" for v in node.inputs),
                "->",
                *(v.name for v in node.outputs),
                *sorted(node.attributes),
            )
    return digest.hexdigest()
