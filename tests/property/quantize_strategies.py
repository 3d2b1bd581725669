"""Random small convolutional networks: shortcuts, several readers, several outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import onnx_ir as ir
from graphs import graph
from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy], object]


@dataclass
class _Net:
    """A network being drawn: the text of its nodes, its weights, and the values that a next node can read."""

    draw: Draw
    nodes: list[str] = field(default_factory=list)
    weights: list[str] = field(default_factory=list)
    values: list[tuple[str, tuple[int, int, int]]] = field(default_factory=list)  # name, (channels, height, width)

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(f"float[{','.join(map(str, shape))}] {name}")
        return name

    def add(self, expression: str, shape: tuple[int, int, int]) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(f"{name} = {expression}")
        self.values.append((name, shape))
        return name

    def constant(self, text: str) -> str:
        name = f"k{len(self.nodes)}"
        self.nodes.append(f"{name} = Constant<value = {text}>()")
        return name

    def pick(self) -> tuple[str, tuple[int, int, int]]:
        """Mostly the last value, so that networks get deep; sometimes an older one."""
        return self.draw(st.sampled_from([self.values[-1]] * 2 * len(self.values) + self.values))  # type: ignore[return-value]


def _conv(net: _Net, source: str, shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    size = net.draw(st.sampled_from([1, 3]))
    depthwise = net.draw(st.booleans())
    out = channels if depthwise else net.draw(st.sampled_from([4, 8, 16]))
    weight = net.weight(out, 1 if depthwise else channels, size, size)
    bias = f", {net.weight(out)}" if net.draw(st.booleans()) else ""
    pad = size // 2
    group = channels if depthwise else 1
    net.add(
        f"Conv<group = {group}, pads = [{pad}, {pad}, {pad}, {pad}]>({source}, {weight}{bias})", (out, height, width)
    )


def _clip(net: _Net, source: str, shape: tuple[int, int, int]) -> None:
    low, high = net.draw(st.sampled_from([("0.0", "6.0"), ("-1.0", "1.0"), ("-0.5", "2.0")]))
    net.add(f"Clip({source}, {net.constant(f'float {{{low}}}')}, {net.constant(f'float {{{high}}}')})", shape)


def _same_shape(op_type: str) -> Callable[[_Net, str, tuple[int, int, int]], None]:
    def rule(net: _Net, source: str, shape: tuple[int, int, int]) -> None:
        other = net.draw(st.sampled_from([v for v, s in net.values if s == shape]))
        net.add(f"{op_type}({source}, {other})", shape)

    return rule


def _constant_operand(net: _Net, source: str, shape: tuple[int, int, int]) -> None:
    op_type, value = net.draw(st.sampled_from([("Add", "0.5"), ("Mul", "-1.5"), ("Mul", "0.25"), ("Add", "-3.0")]))
    net.add(f"{op_type}({source}, {net.constant(f'float {{{value}}}')})", shape)


def _concat(net: _Net, source: str, shape: tuple[int, int, int]) -> None:
    others = [(v, s) for v, s in net.values if s[1:] == shape[1:] and s[0] + shape[0] <= 48]
    if others:
        other, (channels, *_) = net.draw(st.sampled_from(others))
        net.add(f"Concat<axis = 1>({source}, {other})", (shape[0] + channels, *shape[1:]))


def _pool(op_type: str) -> Callable[[_Net, str, tuple[int, int, int]], None]:
    def rule(net: _Net, source: str, shape: tuple[int, int, int]) -> None:
        if min(shape[1:]) >= 4:
            halved = (shape[0], shape[1] // 2, shape[2] // 2)
            net.add(f"{op_type}<kernel_shape = [2, 2], strides = [2, 2]>({source})", halved)

    return rule


def _gate(net: _Net, source: str, shape: tuple[int, int, int]) -> None:
    channels = shape[0]
    pooled = net.add(f"GlobalAveragePool({source})", (channels, 1, 1))
    scores = net.add(f"Conv({pooled}, {net.weight(channels, channels, 1, 1)})", (channels, 1, 1))
    net.add(f"Mul({source}, {net.add(f'Sigmoid({scores})', (channels, 1, 1))})", shape)


def _moved(net: _Net, source: str, shape: tuple[int, int, int]) -> None:
    channels, height, width = shape
    if net.draw(st.booleans()):
        net.add(f"Transpose<perm = [0, 1, 3, 2]>({source})", (channels, width, height))
    else:
        sizes = net.constant(f"int64[4] {{0, {channels}, {height * width}, 1}}")
        net.add(f"Reshape({source}, {sizes})", (channels, height * width, 1))


def _unary(expression: str) -> Callable[[_Net, str, tuple[int, int, int]], None]:
    return lambda net, source, shape: net.add(expression.format(source), shape) and None


RULES = (
    *[_conv] * 6,
    *[_unary("Relu({})")] * 2,
    _clip,
    _same_shape("Add"),
    _same_shape("Mul"),
    _constant_operand,
    _concat,
    _pool("MaxPool"),
    _pool("AveragePool"),
    _gate,
    _moved,
    _unary("LeakyRelu<alpha = 0.1>({})"),
    _unary("Sigmoid({})"),
    _unary("Tanh({})"),
)


@st.composite
def networks(draw: Draw) -> ir.Model:
    """A network with input x [N, C, H, W] and one to three outputs: values of it, or a classifier's scores."""
    shape = (draw(st.sampled_from([3, 4, 8])), *draw(st.sampled_from([(8, 8), (6, 10)])))
    net = _Net(draw, values=[("x", shape)])
    for rule in draw(st.lists(st.sampled_from(RULES), min_size=5, max_size=14)):
        rule(net, *net.pick())
    last, (channels, *_) = net.values[-1]
    outputs = [last]
    if draw(st.booleans()):
        net.nodes.append(f"p = GlobalAveragePool({last}) f = Flatten(p)")
        net.nodes.append(f"scores = Gemm<transB = 1>(f, {net.weight(10, channels)}, {net.weight(10)})")
        outputs.append("scores")
    outputs += [name for name, _ in draw(st.lists(st.sampled_from(net.values[1:]), max_size=1)) if name not in outputs]
    given = "".join(f", {w}" for w in net.weights)
    # A symbol is one size: each output has its own.
    listed = ", ".join(
        f"float[N,10] {name}" if name == "scores" else f"float[N,a{i},b{i},c{i}] {name}"
        for i, name in enumerate(outputs)
    )
    c, h, w = shape
    return graph(
        f"g (float[N,{c},{h},{w}] x{given}) => ({listed}) {{ {' '.join(net.nodes)} }}", seed=draw(st.integers(0, 99))
    )
