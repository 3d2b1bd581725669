"""Small valid networks: convolutions, batch norms, residuals, pads, shape arithmetic, products, and what
exporters leave."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from graphs import graph
from hypothesis import strategies as st


@dataclass
class Net:
    """A network while it is drawn: the text so far, and what its newest value looks like.

    Args:
        shape: Without the batch axis.
        past: Earlier values by shape, for residuals.
    """

    draw: st.DrawFn
    shape: tuple[int, ...]
    value: str = "x"
    nodes: list[str] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    past: dict[tuple[int, ...], list[str]] = field(default_factory=dict)
    constants: int = 0

    def weight(self, *shape: int, positive: bool = False) -> str:
        """A new one, or now and then one that is there (tied)."""
        alike = [n for n, w in self.weights.items() if w.shape == shape and w.dtype == np.float32]
        if alike and not positive and self.draw(st.integers(0, 5)) == 0:
            return self.draw(st.sampled_from(alike))
        name = f"w{len(self.weights)}"
        array = np.random.default_rng(len(self.weights)).standard_normal(shape) / max(1, np.prod(shape[1:])) ** 0.5
        self.weights[name] = (np.abs(array) + 0.5 if positive else array).astype(np.float32)
        return name

    def ints(self, *values: int, scalar: bool = False) -> str:
        self.constants += 1
        kind = "int64" if scalar else f"int64[{len(values)}]"
        self.nodes.append(f"c{self.constants} = Constant<value = {kind} {{{','.join(map(str, values))}}}>()")
        return f"c{self.constants}"

    def put(self, call: str, shape: tuple[int, ...] | None = None) -> None:
        self.past.setdefault(self.shape, []).append(self.value)
        self.value = f"v{len(self.nodes)}"
        self.nodes.append(f"{self.value} = {call}")
        self.shape = shape or self.shape


def _conv(net: Net) -> None:
    channels, size = net.shape[0], net.shape[1]
    out, kernel = net.draw(st.sampled_from([2, 4])), net.draw(st.sampled_from([1, 3] if size > 3 else [1]))
    groups = net.draw(st.sampled_from([1, 2])) if channels % 2 == 0 else 1
    pad = net.draw(st.sampled_from([0, 1]))
    inputs = [net.value, net.weight(out, channels // groups, kernel, kernel)]
    inputs += [net.weight(out)] if net.draw(st.booleans()) else []
    side = size + 2 * pad - kernel + 1
    net.put(f"Conv<group={groups}, pads=[{pad},{pad},{pad},{pad}]>({', '.join(inputs)})", (out, side, side))


def _conv_transpose(net: Net) -> None:
    channels, size = net.shape[0], net.shape[1]
    groups = net.draw(st.sampled_from([1, 2])) if channels % 2 == 0 else 1
    inputs = [net.value, net.weight(channels, 2, 2, 2)]
    net.put(f"ConvTranspose<group={groups}>({', '.join(inputs)})", (2 * groups, size + 1, size + 1))


def _batch_norm(net: Net) -> None:
    c = net.shape[0]
    parameters = [net.weight(c), net.weight(c), net.weight(c), net.weight(c, positive=True)]
    net.put(f"BatchNormalization({net.value}, {', '.join(parameters)})")


def _scale(net: Net) -> None:
    kind = net.draw(st.sampled_from(["Mul", "Add", "Sub"]))
    shape = net.draw(st.sampled_from([(), (1,), (net.shape[0], *(1,) * (len(net.shape) - 1)), (net.shape[-1],)]))
    operands = [net.value, net.weight(*shape)]
    net.put(f"{kind}({', '.join(operands if kind == 'Sub' else net.draw(st.permutations(operands)))})")


def _folded_scale(net: Net) -> None:
    """A constant that the graph computes."""
    chain = f"k{len(net.nodes)}"
    net.nodes.append(f"{chain} = {net.draw(st.sampled_from(['Neg', 'Abs', 'Exp']))}({net.weight(net.shape[-1])})")
    net.put(f"Mul({net.value}, {chain})")


def _idle(net: Net) -> None:
    net.put(f"{net.draw(st.sampled_from(['Identity', 'Dropout', 'Cast<to=1>', 'Sum']))}({net.value})")


def _activation(net: Net) -> None:
    net.put(f"{net.draw(st.sampled_from(['Relu', 'Sigmoid', 'Tanh', 'Softmax']))}({net.value})")


def _residual(net: Net) -> None:
    other = net.draw(st.sampled_from([*net.past.get(net.shape, []), net.value]))
    net.put(f"{net.draw(st.sampled_from(['Add', 'Mul']))}({net.value}, {other})")


def _concat(net: Net) -> None:
    other = net.draw(st.sampled_from([*net.past.get(net.shape, []), net.value]))
    net.put(f"Concat<axis=1>({net.value}, {other})", (2 * net.shape[0], *net.shape[1:]))


def _pad(net: Net) -> None:
    amounts = net.ints(0, 0, 1, 0, 0, 0, 0, 1)
    net.put(f"Pad({net.value}, {amounts})", (net.shape[0], net.shape[1] + 1, net.shape[2] + 1))


def _slice(net: Net) -> None:
    start, end, axis = net.ints(net.draw(st.sampled_from([0, 1]))), net.ints(2**62), net.ints(1)
    if net.shape[0] < 2:
        return
    begin = int(net.nodes[-3].split("{")[1].split("}")[0])
    net.put(f"Slice({net.value}, {start}, {end}, {axis})", (net.shape[0] - begin, *net.shape[1:]))


def _flatten_by_shape(net: Net) -> None:
    """As PyTorch exports `view(x.size(0), -1)`."""
    tag = len(net.nodes)
    index, axes, rest = net.ints(0, scalar=True), net.ints(0), net.ints(-1)
    net.nodes += [
        f"s{tag} = Shape({net.value})",
        f"n{tag} = Gather(s{tag}, {index})",
        f"u{tag} = Unsqueeze(n{tag}, {axes})",
        f"t{tag} = Concat<axis=0>(u{tag}, {rest})",
    ]
    net.put(f"Reshape({net.value}, t{tag})", (int(np.prod(net.shape)),))


def _gemm(net: Net) -> None:
    out, transposed = net.draw(st.sampled_from([3, 4])), net.draw(st.booleans())
    weight = net.weight(out, net.shape[0]) if transposed else net.weight(net.shape[0], out)
    factors = net.draw(st.sampled_from(["", ", alpha=0.5, beta=2.0"]))
    inputs = [net.value, weight, *([net.weight(out)] if net.draw(st.booleans()) else [])]
    net.put(f"Gemm<transB={int(transposed)}{factors}>({', '.join(inputs)})", (out,))


ANYWHERE = [_batch_norm, _scale, _folded_scale, _idle, _activation, _residual, _concat, _slice]
ON_IMAGES = [*ANYWHERE, _conv, _conv, _conv_transpose, _pad, _batch_norm]
ON_VECTORS = [*ANYWHERE, _gemm, _gemm]


@st.composite
def networks(draw: st.DrawFn) -> ir.Model:
    """A network over float[N,C,5,5] with a dynamic batch, or a fixed one; one or two outputs."""
    batch = draw(st.sampled_from(["N", "2"]))
    net = Net(draw, (draw(st.sampled_from([1, 2, 3])), 5, 5))
    start = f"{batch},{','.join(map(str, net.shape))}"
    for step in draw(st.lists(st.sampled_from(ON_IMAGES), min_size=1, max_size=7)):
        if int(np.prod(net.shape)) < 2000:
            step(net)
    if draw(st.booleans()):
        _flatten_by_shape(net)
        for step in draw(st.lists(st.sampled_from(ON_VECTORS), max_size=4)):
            step(net)
    if net.value == "x":
        net.put("Relu(x)")
    outputs = [(net.value, net.shape)]
    inner = [(name, shape) for shape, names in net.past.items() for name in names if name != "x"]
    if inner and draw(st.booleans()):
        outputs.append(draw(st.sampled_from(inner)))
    declared = ", ".join(f"float[{batch},{','.join(map(str, shape))}] {name}" for name, shape in outputs)
    weights = "".join(
        f", float[{','.join(map(str, w.shape))}] {n}" if w.ndim else f", float {n}" for n, w in net.weights.items()
    )
    opset = draw(st.sampled_from([13, 17, 21]))
    return graph(
        f"g (float[{start}] x{weights}) => ({declared}) {{ {' '.join(net.nodes)} }}", opset=opset, **net.weights
    )
