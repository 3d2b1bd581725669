"""LSTM, GRU and RNN, alone and behind convolutions."""

from __future__ import annotations

import onnx_ir as ir

from topologies.net import Dim, Net
from topologies.registry import topology

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _recurrent(
    n: Net, op: str, x: str, hidden: int, *rest: str, directions: int = 1, count: int = 1
) -> tuple[str, ...]:
    """x [S, N, D] to [S, directions, N, hidden]; `rest`: sequence_lens, initial_h, …"""
    gates, width = _GATES[op], n.width(x, -1)
    weights = (
        n.weight(directions, gates * hidden, width, fan_in=2 * width),
        n.weight(directions, gates * hidden, hidden, fan_in=2 * hidden),
        n.small(directions, 2 * gates * hidden),
    )
    steps, batch, *_ = n.shape(x)
    shape: tuple[Dim, ...] = (steps, directions, batch, hidden)
    direction = "bidirectional" if directions == 2 else "forward"
    inputs = (x, *weights, *rest)
    if op == "GRU":  # PyTorch applies the reset gate after the product
        outputs = n.nodes(
            op, *inputs, count=count, shape=shape, hidden_size=hidden, direction=direction, linear_before_reset=1
        )  # fmt: skip
    else:
        outputs = n.nodes(op, *inputs, count=count, shape=shape, hidden_size=hidden, direction=direction)
    for state in outputs[1:]:
        n.types[state] = type(n.types[x]).FromString(n.types[outputs[0]].SerializeToString())
        del n.types[state].tensor_type.shape.dim[0]
    return outputs


def _sequence(n: Net, width: int = 24) -> str:
    return n.input("x", 10, "N", width)


@topology()
def lstm_matmul() -> ir.Model:
    n = Net()
    (y,) = _recurrent(n, "LSTM", _sequence(n), 48)
    return n.build(n.linear(n.node("Squeeze", y, n.ints(1)), 10))


@topology()
def lstm_last_state() -> ir.Model:
    """Only the final hidden state is read."""
    n = Net()
    _, h, _ = _recurrent(n, "LSTM", _sequence(n), 48, count=3)
    return n.build(n.gemm(n.node("Squeeze", h, n.ints(0)), 10))


@topology()
def lstm_with_peepholes() -> ir.Model:
    n = Net()
    (y,) = _recurrent(n, "LSTM", _sequence(n), 40, "", "", "", n.small(1, 3 * 40))
    return n.build(n.linear(n.node("Squeeze", y, n.ints(1)), 10))


@topology()
def stacked_lstm_with_states() -> ir.Model:
    """Two layers, initial states from the inputs, final states as outputs: the widths are part of the signature."""
    n = Net()
    x, states = _sequence(n), []
    for layer in range(2):
        given = (n.input(f"{kind}{layer}", 1, "N", 32) for kind in "hc")
        y, h, c = _recurrent(n, "LSTM", x, 32, "", *given, count=3)
        x = n.node("Squeeze", y, n.ints(1))
        states += [h, c]
    return n.build(n.linear(n.relu(n.linear(x, 64)), 10), *states)


@topology()
def stacked_lstm_with_learned_states() -> ir.Model:
    """Initial states in initializers: the hidden sizes are free."""
    n = Net()
    x = n.input("x", 10, 1, 24)
    for hidden in (48, 32):
        (y,) = _recurrent(n, "LSTM", x, hidden, "", n.small(1, 1, hidden), n.small(1, 1, hidden))
        x = n.node("Squeeze", y, n.ints(1))
    return n.build(n.linear(x, 10))


@topology()
def lstm_states_expanded() -> ir.Model:
    """Zero states made for the batch at run time by Expand; the hidden size is a literal in the shape."""
    n = Net()
    x = _sequence(n)
    batch = n.node("Slice", n.node("Shape", x), n.ints(1), n.ints(2), n.ints(0))
    target = n.concat(n.ints(1), batch, n.ints(48), axis=0)
    states = [n.node("Expand", n.scalar(0.0), target, shape=(1, "N", 48)) for _ in range(2)]
    (y,) = _recurrent(n, "LSTM", x, 48, "", *states)
    return n.build(n.linear(n.node("Squeeze", y, n.ints(1)), 10))


@topology()
def bidirectional_gru() -> ir.Model:
    """Both directions joined by Transpose and Reshape, as PyTorch exports it."""
    n = Net()
    x = _sequence(n)
    for hidden in (48, 32):
        (y,) = _recurrent(n, "GRU", x, hidden, directions=2)
        x = n.reshape(n.transpose(y, 0, 2, 1, 3), 0, 0, 2 * hidden)
    return n.build(n.linear(x, 10))


@topology()
def bidirectional_lstm_last() -> ir.Model:
    """The last states of both directions side by side."""
    n = Net(18)
    _, h, _ = _recurrent(n, "LSTM", _sequence(n), 40, directions=2, count=3)
    return n.build(n.gemm(n.reshape(n.transpose(h, 1, 0, 2), -1, 80), 10))


@topology()
def rnn_with_relu() -> ir.Model:
    n = Net()
    x = n.relu(n.linear(_sequence(n), 48))
    (y,) = _recurrent(n, "RNN", x, 64)
    return n.build(n.linear(n.node("Squeeze", y, n.ints(1)), 10))


@topology()
def gru_with_residual() -> ir.Model:
    """The input of the GRU is added to its output: hidden size and input width must stay equal."""
    n = Net(22)
    x = n.linear(_sequence(n), 48)
    (y,) = _recurrent(n, "GRU", x, 48)
    return n.build(n.linear(n.add(x, n.node("Squeeze", y, n.ints(1))), 10))


def _image_columns(n: Net) -> str:
    """A text line [N, 1, 8, 32] to features [N, 48, 1, 16]."""
    x = n.relu(n.conv_bn(n.input("x", "N", 1, 8, 32), 32, stride=2))
    x = n.relu(n.conv_bn(x, 48))
    return n.node("MaxPool", x, kernel_shape=[4, 1], strides=[4, 1])


@topology()
def text_line_scores() -> ir.Model:
    """A head for CTC: Squeeze, Transpose, MatMul for each column."""
    n = Net()
    x = n.transpose(n.node("Squeeze", _image_columns(n), n.ints(2)), 0, 2, 1)
    return n.build(n.linear(n.relu(n.linear(x, 64)), 40))


@topology()
def crnn() -> ir.Model:
    """Columns through a bidirectional LSTM (Shi et al. 2015)."""
    n = Net(13)
    x = n.transpose(n.node("Squeeze", _image_columns(n), n.ints(2)), 2, 0, 1)
    (y,) = _recurrent(n, "LSTM", x, 32, directions=2)
    return n.build(n.linear(n.reshape(n.transpose(y, 0, 2, 1, 3), 0, 0, 64), 40))


@topology()
def column_features_flattened() -> ir.Model:
    """Channels and rows of a column joined to the features of a GRU."""
    n = Net()
    x = n.relu(n.conv_bn(n.input("x", "N", 1, 4, 16), 24))
    x = n.reshape(n.transpose(x, 3, 0, 1, 2), 16, 0, 96)
    (y,) = _recurrent(n, "GRU", x, 32)
    return n.build(n.linear(n.node("Squeeze", y, n.ints(1)), 12))
