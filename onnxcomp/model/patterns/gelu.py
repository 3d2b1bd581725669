"""GELU as exporters write it: with the error function, or with a hyperbolic tangent.

    x/2 · (1 + erf(x/√2))                              Gelu
    x/2 · (1 + tanh(√(2/π) · (x + 0.044715·x³)))       Gelu, approximate = "tanh"          (Hendrycks and Gimpel 2016)

The factors stand in any order. So what is compared is not the order of nodes but the polynomials that they compute: the
argument's in x, and the result's in x and t = erf(…) or tanh(…).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from math import pi, sqrt

import onnx_ir as ir

from onnxcomp.model.patterns.match import Match, Pattern, is_closed, number, producer_of, rank_of, reader
from onnxcomp.model.shapes import trusted

Polynomial = dict[tuple[int, int], float]
"""Powers of x and of t → coefficient."""

_X: Polynomial = {(1, 0): 1.0}
_T: Polynomial = {(0, 1): 1.0}
_RESULT: Polynomial = {(1, 0): 0.5, (1, 1): 0.5}

_ARGUMENT: dict[str, tuple[Polynomial, str]] = {
    "Erf": ({(1, 0): 1 / sqrt(2)}, "none"),
    "Tanh": ({(1, 0): sqrt(2 / pi), (3, 0): 0.044715 * sqrt(2 / pi)}, "tanh"),
}

_CLOSE = 1e-6
"""Relative: constants in files are rounded to float32."""

_DEEPEST = 6
"""Nodes between x and the function, and behind it."""


def match(node: ir.Node) -> Match | None:
    """The GELU around an Erf or Tanh."""
    wanted, approximate = _ARGUMENT[node.op_type]
    argument = node.inputs[0]
    if argument is None or argument.dtype != ir.DataType.FLOAT:
        return None
    for x in _ancestors(argument):
        expression = _Expression({x: _X}, rank_of(x) if trusted(x) is not None else 0)
        if not _equal(expression.expand(argument), wanted):
            continue
        expression.known[node.outputs[0]] = _T
        result = _result(expression, node.outputs[0])
        nodes = (*expression.nodes, node)
        if result is not None and is_closed(nodes, result):
            return Match("Gelu", nodes, result, (x,), {"approximate": approximate})
    return None


PATTERN = Pattern("Gelu", 20, frozenset(_ARGUMENT), match)


def _ancestors(value: ir.Value) -> Iterator[ir.Value]:
    """Values from which arithmetic alone leads to `value`, nearest first, each once."""
    seen, front = {value}, [value]
    for _ in range(_DEEPEST):
        nodes = [n for v in front if (n := producer_of(v, *_RULES)) is not None]
        front = []
        for source in (v for n in nodes for v in n.inputs if v is not None):
            if source not in seen and source.const_value is None:
                seen.add(source)
                front.append(source)
                yield source


def _result(expression: _Expression, value: ir.Value) -> ir.Value | None:
    """Follows the function's value to where the GELU is complete."""
    for _ in range(_DEEPEST):
        node = reader(value)
        if node is None or node.op_type not in _RULES:
            return None
        value = node.outputs[0]
        found = expression.expand(value)
        if found is None or _equal(found, _RESULT):
            return None if found is None else value
    return None


class _Expression:
    """Values as polynomials of those that are known.

    Args:
        rank: Of x, 0 if unknown: constants of more axes would add some.
    """

    def __init__(self, known: dict[ir.Value, Polynomial], rank: int) -> None:
        self.known = known
        self.rank = rank
        self.nodes: dict[ir.Node, None] = {}

    def expand(self, value: ir.Value | None, depth: int = _DEEPEST) -> Polynomial | None:
        """The polynomial of `value`; None if it is none. Nodes on the way are remembered."""
        if value in self.known:
            return self.known[value]
        constant = number(value, self.rank)
        if constant is not None:
            return {(0, 0): constant}
        node = producer_of(value, *_RULES)
        if node is None or depth == 0:
            return None
        a, b = (self.expand(v, depth - 1) for v in node.inputs[:2])
        found = None if a is None or b is None else _RULES[node.op_type](a, b)
        if found is not None:
            self.nodes[node] = None
        return found


def _sum(a: Polynomial, b: Polynomial) -> Polynomial:
    return {powers: a.get(powers, 0.0) + b.get(powers, 0.0) for powers in a | b}


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    result: Polynomial = defaultdict(float)
    for (i, j), p in a.items():
        for (k, m), q in b.items():
            result[i + k, j + m] += p * q
    return dict(result)


def _quotient(a: Polynomial, b: Polynomial) -> Polynomial | None:
    divisor = b.get((0, 0), 0.0)
    return {powers: c / divisor for powers, c in a.items()} if set(b) == {(0, 0)} and divisor else None


def _power(a: Polynomial, b: Polynomial) -> Polynomial | None:
    if b == {(0, 0): 2.0}:
        return _product(a, a)
    return _product(a, _product(a, a)) if b == {(0, 0): 3.0} else None


_RULES: dict[str, Callable[[Polynomial, Polynomial], Polynomial | None]] = {
    "Add": _sum,
    "Mul": _product,
    "Div": _quotient,
    "Pow": _power,
}


def _equal(a: Polynomial | None, b: Polynomial) -> bool:
    return a is not None and set(a) == set(b) and all(abs(a[p] - b[p]) <= _CLOSE * abs(b[p]) for p in b)
