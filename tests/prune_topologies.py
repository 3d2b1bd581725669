"""The test bed of channel pruning: every registered topology, and feeds for them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from topologies import (  # noqa: F401  (each registers its builders)
    attention,
    chains,
    dense,
    detection,
    fused,
    graphs_within,
    movement,
    norms,
    quantized,
    rare,
    recurrent,
    reduction,
    residual,
    shapes,
    transformers,
    weights,
)
from topologies.registry import TOPOLOGIES, Topology

__all__ = ["TOPOLOGIES", "Topology", "feed_of"]


def feed_of(model: ir.Model, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A random feed: floats are normal, integers index the table that they look up (otherwise 0 or 1).

    Args:
        model: Its batch is called N; other symbolic dimensions are 4 + 4·batch, so that they vary too.
        batch: Size of N.
        seed: Another seed is another feed.
    """
    rng = np.random.default_rng(seed)
    feed: dict[str, np.ndarray] = {}
    for value in model.graph.inputs:
        assert value.name
        assert value.dtype
        assert value.shape is not None
        shape = [d if isinstance(d, int) else batch if str(d.value) == "N" else 4 + 4 * batch for d in value.shape]
        dtype = np.dtype(value.dtype.numpy())
        if dtype.kind in "iu":
            feed[value.name] = rng.integers(0, _rows_looked_up(value), shape).astype(dtype)
        elif dtype.kind == "b":
            feed[value.name] = rng.random(shape) < 0.5
        else:
            feed[value.name] = rng.standard_normal(shape).astype(dtype)
    return feed


def _rows_looked_up(indices: ir.Value) -> int:
    """Rows of the smallest table that `indices` index, by Gather along axis 0 or by OneHot; 2 where there is none."""
    rows = [2 << 30]
    for node, _ in indices.uses():
        if node.op_type == "Gather" and (table := node.inputs[0]) and table.const_value:
            rows.append(table.const_value.numpy().shape[0])
        elif node.op_type == "OneHot" and (depth := node.inputs[1]) and depth.const_value:
            rows.append(int(depth.const_value.numpy()))
    return min(rows) if len(rows) > 1 else 2
