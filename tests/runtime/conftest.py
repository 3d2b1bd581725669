"""Tiny models, as text and as bytes."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import pytest

HEADER = '<ir_version: 8, opset_import: ["": 17]>'


@pytest.fixture
def serialized() -> Callable[[str], bytes]:
    """Turns the text of a graph (opset 17) into the bytes of a model."""

    def convert(graph: str) -> bytes:
        text = graph if graph.startswith("<") else f"{HEADER} {graph}"
        data: bytes = ir.to_proto(ir.from_onnx_text(text)).SerializeToString()
        return data

    return convert


@pytest.fixture
def relu(serialized: Callable[[str], bytes]) -> bytes:
    return serialized("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
