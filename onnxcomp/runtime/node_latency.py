"""What a single node costs on this machine: measured in a session of its own, remembered by what it is.

What is measured is the cost of one *more* node of the kind among others of its layout: a model with four copies of the
node behind a common input against a model with one, (t4 − t1) / 3. A session with the node alone charges it what a
chain pays once or never: the overhead of a call, and the conversion of input and output to the blocked layout (NCHWc)
in which ONNX Runtime computes float convolutions. In µs, with AVX-512 and one thread:

    convolution                 alone    one more in a chain of four    this method
    3×3, 64 → 64, 56²           2021     2028                           2007
    1×1, 64 → 64, 28²             98       72                             57
    3×3 depthwise, 192, 28²      100       51                             41
    1×1, 16 → 16, 14²            7.6      1.8                            1.8

The sum over all nodes then is close to the whole model: 6.77 of 7.06 ms for MobileNetV2 at 224², 2.36 of 2.26 ms for
ResNet-56 at 32².

To keep the copies inside the layout, a max pool of one pixel stands before them, and one that takes a single pixel of
the output behind each (below 1 µs). A convolution that ONNX Runtime computes outside the blocked layout is charged
without the conversions around it: they depend on its neighbours, and only the whole model shows them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from onnxcomp.model.shapes import refresh
from onnxcomp.runtime.benchmark import measure
from onnxcomp.runtime.cache import Cache, Json, content_key
from onnxcomp.runtime.host import detect_host
from onnxcomp.runtime.library import version
from onnxcomp.runtime.node_spec import NodeSpec, Port
from onnxcomp.runtime.session import SessionConfig, open_session

_COPIES = (1, 4)
_LARGE = 1 << 26
"""Bytes of weights from which on a node is timed alone: copies would need as much memory each, and what a call costs
beside the node no longer counts."""

# Copies of a node without weights are all alike, and would be computed once.
_NO_MERGING = ("optimization.disable_specified_optimizers", "CommonSubexpressionElimination")
_FAR = 1 << 20


def node_model(spec: NodeSpec, copies: int = 1, *, in_layout: bool = True) -> ir.Model:
    """`copies` of the node side by side on the same inputs, each with its own weights (seeded, normal).

    Args:
        spec: The node.
        copies: How many.
        in_layout: Put the one-pixel pools around operators that the blocked layout has; else the outputs are the first
            one of each copy.
    """
    rng = np.random.default_rng(0)
    fed = {i: port for i, port in enumerate(spec.inputs) if port is not None and not port.constant}
    inputs = {i: ir.val(f"x{i}", ir.DataType[port.dtype], port.shape) for i, port in fed.items()}
    nodes: list[ir.Node] = []
    shared = dict(inputs)
    in_layout = in_layout and spec.domain == "" and spec.op_type in _BLOCKED
    if in_layout:
        pools = {i: ir.node("MaxPool", [inputs[i]], {"kernel_shape": [1, 1]}) for i in fed if _is_image(inputs[i])}
        nodes.extend(pools.values())
        shared |= {i: pool.outputs[0] for i, pool in pools.items()}
    weights: list[ir.Value] = []
    results: list[ir.Value] = []
    for copy in range(copies):
        operands = dict(shared)
        for i, port in enumerate(spec.inputs):
            if port is not None and port.constant:
                tensor = ir.tensor(_filled(port, rng), ir.DataType[port.dtype], name=f"w{i}_{copy}")
                operands[i] = ir.val(tensor.name or "", const_value=tensor)
                weights.append(operands[i])
        ordered = [operands.get(i) for i in range(len(spec.inputs))]
        attributes = {name: list(v) if isinstance(v, tuple) else v for name, v in spec.attributes}
        nodes.append(ir.node(spec.op_type, ordered, attributes, domain=spec.domain, num_outputs=spec.outputs))
        results.append(nodes[-1].outputs[0])
    opsets = {"": spec.opset} | ({spec.domain: 1} if spec.domain else {})
    graph = ir.Graph(
        list(inputs.values()), results, nodes=nodes, initializers=weights, opset_imports=opsets, name="node"
    )
    model = ir.Model(graph, ir_version=_IR_VERSION)
    refresh(model)
    if in_layout:
        far = {"kernel_shape": [1, 1], "strides": [_FAR, _FAR]}
        sinks = [ir.node("MaxPool", [value], far) if _is_image(value) else None for value in results]
        graph.extend(sink for sink in sinks if sink is not None)
        graph.outputs[:] = [v if s is None else s.outputs[0] for v, s in zip(results, sinks, strict=True)]
        refresh(model)
    return model


_BLOCKED = frozenset({"BatchNormalization", "Conv"}) | {"Add", "Concat", "Mul", "Sum"}
_BLOCKED |= {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}
_BLOCKED |= {"HardSigmoid", "HardSwish", "Relu", "Sigmoid", "Tanh"}
"""Operators that take and give the blocked layout (`NchwcTransformerImpl::Transform`, and tried)."""

_IR_VERSION = 10
"""The newest that every ONNX Runtime we support reads."""


def _is_image(value: ir.Value) -> bool:
    """[N, C, H, W] in float32: what the blocked layout is for."""
    return value.shape is not None and len(value.shape) == 4 and value.dtype == ir.DataType.FLOAT


def _filled(port: Port, rng: np.random.Generator) -> np.ndarray:
    """The content, where it matters; else normal numbers, or zeros for integers (0 is an index of any table)."""
    dtype = ir.DataType[port.dtype]
    if port.content is not None:
        return np.asarray(np.array(port.content).reshape(port.shape), dtype.numpy())
    if not dtype.is_floating_point():
        return np.zeros(port.shape, dtype.numpy())
    # Scaled by the fan-in, so that a half float does not overflow.
    fan_in = max(1.0, float(np.prod(port.shape[1:], dtype=np.float64)))
    values = rng.standard_normal(port.shape, dtype=np.float32)
    values /= np.float32(np.sqrt(fan_in))
    return np.asarray(values, dtype.numpy())


def measure_node(spec: NodeSpec, config: SessionConfig) -> float:
    """Milliseconds of one more node of this kind; about 50 ms are spent on finding out.

    Raises:
        ModelError: ONNX Runtime refuses the node.
        UnavailableError: The provider is not here.
    """
    config = replace(config, entries=(*config.entries, _NO_MERGING), optimized_path=None, profile_prefix=None)
    rng = np.random.default_rng(1)
    feed = {f"x{i}": _filled(p, rng) for i, p in enumerate(spec.inputs) if p is not None and not p.constant}
    with ExitStack() as stack:
        copies = _COPIES[:1] if weight_bytes(spec) >= _LARGE else _COPIES
        sessions = [stack.enter_context(open_session(node_model(spec, n), config)) for n in copies]
        runners = {str(n): session.runner(feed) for n, session in zip(copies, sessions, strict=True)}
        # A sample of a fast node is the mean of many runs; a slow node takes few long ones.
        timed = measure(
            runners, warmup_seconds=0.003, warmup_runs=2, min_rounds=10, min_seconds=0.02, max_seconds=_LONGEST
        )
    if len(copies) == 1:
        return timed.stats(str(copies[0])).p10
    few, many = (timed.stats(str(n)).p10 for n in copies)
    return max(0.0, (many - few) / (copies[1] - copies[0]))


def weight_bytes(spec: NodeSpec) -> int:
    """Of the constant inputs of one node."""
    ports = [port for port in spec.inputs if port is not None and port.constant]
    return sum(int(np.prod(p.shape, dtype=np.int64)) * ir.DataType[p.dtype].bitwidth // 8 for p in ports)


_LONGEST = 0.1

Measure = Callable[[NodeSpec, SessionConfig], float]


@dataclass
class NodeTable:
    """Latencies of nodes, each measured once on this machine with these settings, and kept in the cache.

    Args:
        config: Provider, threads and the like.
        cache: Where measurements of earlier runs lie.
        measure: How a node is timed.
        measured: Nodes that this table had to time itself.
    """

    config: SessionConfig
    cache: Cache = field(default_factory=Cache.default)
    measure: Measure = measure_node
    measured: int = 0
    _known: dict[str, float] = field(default_factory=dict)

    def latency(self, spec: NodeSpec) -> float:
        """Milliseconds of one node.

        Raises:
            ModelError: ONNX Runtime refuses it.
        """
        key = self._key(spec)
        name = content_key(key)
        if name not in self._known:
            found = self.cache.get(_KIND, key)
            if not isinstance(found, int | float) or found < 0:
                found = round(self.measure(spec, self.config), 6)
                self.measured += 1
                self.cache.put(_KIND, key, found)
            self._known[name] = float(found)
        return self._known[name]

    def _key(self, spec: NodeSpec) -> Json:
        return {
            "node": spec.key(),
            "provider": self.config.provider,
            "threads": self.config.threads,
            "optimization": self.config.optimization,
            "entries": [list(entry) for entry in self.config.entries],
            "onnxruntime": version(),
            "cpu": detect_host().cpu,
            "method": _METHOD,
        }


_KIND = "node_latency"
_METHOD = 2
"""To be counted up when what is measured changes."""
