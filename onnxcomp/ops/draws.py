"""Operators that draw random numbers, and the seeds with which two models draw the same ones."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir

from onnxcomp.ops.attributes import is_standard

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
"""Two of these on equal inputs are two draws."""

_SEEDS = 1 << 20
"""Below 2^24, so that the float attribute `seed` holds each exactly."""


def drawing(model: ir.Model) -> list[ir.Node]:
    """The nodes that draw random numbers, those in bodies of If and Loop too."""
    return [node for node in model.graph.all_nodes() if node.op_type in RANDOM and is_standard(node)]


@contextmanager
def seeded(model: ir.Model) -> Iterator[None]:
    """Inside it each of these nodes that has no seed has one, made of the name of its output.

    ONNX Runtime seeds a node without one by its place in the graph, so that a model with a node more or less, which
    computes the same, would draw other numbers and seem to be another.
    """
    nodes = [node for node in drawing(model) if "seed" not in node.attributes]
    try:
        for node in nodes:
            name = (node.outputs[0].name or "").encode()
            node.attributes["seed"] = ir.AttrFloat32("seed", float(zlib.crc32(name) % _SEEDS))
        yield
    finally:
        for node in nodes:
            node.attributes.pop("seed", None)
