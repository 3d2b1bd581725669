"""Two models side by side, piece by piece, holding only the activations that are still needed.

A change to a layer of the second model can be computed from activations that already contain the changes to all layers
before it, at the cost of about one forward pass of each model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.readers import Feed, Reader
from onnxcomp.errors import DataError, ModelError
from onnxcomp.ops.attributes import is_constant
from onnxcomp.runtime.session import SessionConfig, open_session

MOST_ROWS = 64
"""Rows of one batch when feeds are joined: more bring no speed."""


class Walk:
    """One model run over the same feeds, as far as its values are asked for.

    A weight may be changed as long as no value that depends on it has been asked for. Values with subgraphs between
    them work: what a body captures is an input of its piece.

    Args:
        model: Canonical; run as it is at the time of asking.
        feeds: All of them are held, with the live values.
    """

    def __init__(self, model: ir.Model, feeds: Sequence[Feed], config: SessionConfig) -> None:
        self.model = model
        self._config = config
        self._order = {node: i for i, node in enumerate(model.graph)}
        self._reads = {node: tuple(_reads(node, model.graph)) for node in self._order}
        self._values = {v.name or "": v for v in (*model.graph.inputs, *_made(self._order))}
        self._waiting: dict[ir.Value, int] = {}  # nodes not yet run that read the value
        for reads in self._reads.values():
            for value in reads:
                self._waiting[value] = self._waiting.get(value, 0) + 1
        self._live: dict[ir.Value, list[np.ndarray]] = {
            v: [feed[v.name or ""] for feed in feeds] for v in model.graph.inputs if not v.is_initializer()
        }
        self._done: set[ir.Node] = set()
        self._outputs = set(model.graph.outputs)
        self.live_bytes = self.peak_bytes = 0
        self._measure()

    def pending(self, name: str) -> list[ir.Node]:
        """The nodes that must run before the value `name` is there, in order."""
        return self._ancestors([self._values[name]])

    def fetch(self, *names: str) -> list[list[np.ndarray]]:
        """The values by name, one array for each feed; runs what is missing.

        Raises:
            ModelError: A value is gone (all its readers have run), or can't leave a session (sequences, optionals).
        """
        wanted = [self._values[name] for name in names]
        nodes = self._ancestors(wanted)
        if nodes:
            self._run(nodes, wanted)
        try:
            found = [self._live[value] for value in wanted]
        except KeyError as error:
            raise ModelError(f"value {error.args[0].name!r} was asked for after its last reader had run") from None
        self._forget()
        return found

    def _ancestors(self, values: Iterable[ir.Value]) -> list[ir.Node]:
        found: set[ir.Node] = set()
        stack = [v for v in values if v not in self._live]
        while stack:
            node = stack.pop().producer()
            if node is not None and node in self._order and node not in found and node not in self._done:
                found.add(node)
                stack.extend(v for v in self._reads[node] if v not in self._live)
        return sorted(found, key=self._order.__getitem__)

    def _run(self, nodes: list[ir.Node], wanted: Sequence[ir.Value]) -> None:
        inside = set(nodes)
        for node in nodes:
            for value in self._reads[node]:
                self._waiting[value] -= 1
        given = list(dict.fromkeys(v for node in nodes for v in self._reads[node] if v.producer() not in inside))
        asked = set(wanted)
        made = [v for v in _made(nodes) if v in asked or v in self._outputs or self._waiting.get(v, 0)]
        lost = [v for v in given if v not in self._live]
        if lost:
            raise ModelError(f"value {lost[0].name!r} is gone: it was read before by all that read it")
        piece = _piece(self.model, nodes, given, made, self._live)
        names = [v.name or "" for v in made]
        results: list[list[np.ndarray]] = [[] for _ in made]
        count = len(next(iter(self._live.values())))
        with open_session(piece, self._config) as session:
            for i in range(count):
                arrays = session.run({v.name or "": self._live[v][i] for v in given}, names)
                for result, array in zip(results, arrays, strict=True):
                    result.append(array)
        self._done |= inside
        self._live.update(zip(made, results, strict=True))
        self._measure()

    def _forget(self) -> None:
        for value in [v for v in self._live if not self._waiting.get(v, 0) and v not in self._outputs]:
            del self._live[value]
        self._measure()

    def _measure(self) -> None:
        self.live_bytes = sum(getattr(a, "nbytes", 0) for arrays in self._live.values() for a in arrays)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)


@dataclass(frozen=True)
class Stop:
    """What is asked for at one point of the way: names of values of the original, and of the other model."""

    original: tuple[str, ...]
    other: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Lockstep:
    """Two models on the way over the same feeds.

    Args:
        batches: The feeds in use, joined.
        rows: Feeds in use, of the reader's.
        limited: Whether the byte limit left some out.
    """

    original: Walk
    other: Walk
    batches: tuple[Feed, ...]
    rows: int
    limited: bool


def lockstep(
    original: ir.Model,
    other: ir.Model,
    reader: Reader,
    config: SessionConfig,
    stops: Sequence[Stop],
    *,
    limit: int,
    parts: int = 10,
) -> Lockstep:
    """Makes ready to walk both models.

    Args:
        original: Stays as it is.
        other: The caller may change its weights on the way.
        stops: What will be asked for, in order; one feed is sent all the way first, to see what is live at most.
        limit: Bytes of live activations of both models together.
        parts: Fewest batches to make of the feeds, so that some can be held out.

    Raises:
        DataError: There are no feeds.
    """
    first = next(iter(reader), None)
    if first is None:
        raise DataError("the calibration set is empty", hint="give at least one feed; 500 are a good number")
    peak = _peak(original, other, first, config, stops)
    most = max(1, limit // max(peak, 1))
    feeds = list(islice(iter(reader), most + 1))
    limited = len(feeds) > most
    feeds = by_shape(feeds[:most])
    size = max(1, min(MOST_ROWS, -(-len(feeds) // parts))) if can_join(original) else 1
    batches = tuple(joined(feeds, size))
    return Lockstep(Walk(original, batches, config), Walk(other, batches, config), batches, len(feeds), limited)


def _peak(original: ir.Model, other: ir.Model, feed: Feed, config: SessionConfig, stops: Sequence[Stop]) -> int:
    one, two, most = Walk(original, [feed], config), Walk(other, [feed], config), 0
    for stop in stops:
        one.fetch(*stop.original)
        two.fetch(*stop.other)
        most = max(most, one.peak_bytes + two.peak_bytes)
        one.peak_bytes, two.peak_bytes = one.live_bytes, two.live_bytes
    return most


def can_join(model: ir.Model) -> bool:
    """Whether axis 0 of all inputs and outputs is one symbol, so that feeds can be joined there."""
    values = (*(v for v in model.graph.inputs if not v.is_initializer()), *model.graph.outputs)
    first = {None if v.shape is None or not len(v.shape) else _symbol(v.shape[0]) for v in values}
    return len(first) == 1 and None not in first


def _symbol(dim: int | ir.SymbolicDim) -> str | None:
    return None if isinstance(dim, int) or dim.value is None else str(dim.value)


def by_shape(feeds: Iterable[Feed]) -> list[Feed]:
    """Feeds of one shape behind each other, so that they can be joined; otherwise in their order."""
    return sorted(feeds, key=lambda feed: sorted((name, array.shape) for name, array in feed.items()))


def joined(feeds: Iterable[Feed], size: int) -> Iterator[Feed]:
    """Feeds joined along axis 0, `size` at a time; a feed with other shapes behind axis 0 begins a new batch."""
    pending: list[Feed] = []
    for feed in feeds:
        if pending and (len(pending) == size or not _alike(pending[0], feed)):
            yield _join(pending)
            pending = []
        pending.append(feed)
    if pending:
        yield _join(pending)


def _alike(a: Feed, b: Feed) -> bool:
    return all(a[name].shape[1:] == b[name].shape[1:] for name in a)


def _join(feeds: Sequence[Feed]) -> Feed:
    if len(feeds) == 1:
        return feeds[0]
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def _made(nodes: Iterable[ir.Node]) -> Iterator[ir.Value]:
    return (v for node in nodes for v in node.outputs if v.name)


def _reads(node: ir.Node, graph: ir.Graph) -> Iterator[ir.Value]:
    """The values of `graph`, constants aside, that a node or its bodies read; each once."""
    inner = (n for a in node.attributes.values() for body in _bodies(a) for n in body.all_nodes())
    outputs = (v for a in node.attributes.values() for body in _bodies(a) for v in body.outputs)
    values = (*(v for n in (node, *inner) for v in n.inputs), *outputs)
    return iter(dict.fromkeys(v for v in values if v is not None and v.graph is graph and not is_constant(v)))


def _bodies(attribute: ir.Attr) -> Sequence[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    return tuple(attribute.as_graphs()) if attribute.type == ir.AttributeType.GRAPHS else ()


def _piece(
    model: ir.Model,
    nodes: list[ir.Node],
    given: list[ir.Value],
    made: list[ir.Value],
    live: dict[ir.Value, list[np.ndarray]],
) -> ir.Model:
    """A model of some nodes: `given` are its inputs, `made` its outputs."""
    inner = [n for node in nodes for a in node.attributes.values() for b in _bodies(a) for n in b.all_nodes()]
    bodies = [v for node in nodes for a in node.attributes.values() for b in _bodies(a) for v in b.outputs]
    constants = dict.fromkeys(
        v
        for v in (*(v for n in (*nodes, *inner) for v in n.inputs), *bodies)
        if v is not None and v.graph is model.graph and is_constant(v)
    )
    view = ir.GraphView(
        given, made, nodes=nodes, initializers=tuple(constants), opset_imports=model.opset_imports, name="piece"
    )
    graph = view.clone()
    for value, source in zip(graph.inputs, given, strict=True):
        arrays = live[source]
        if not all(isinstance(a, np.ndarray) for a in arrays):
            raise ModelError(f"value {source.name!r} is not a tensor: the model can't be run in pieces there")
        value.type = ir.TensorType(source.dtype or ir.DataType.from_numpy(arrays[0].dtype))
        value.shape = _common_shape(arrays)
    for node in graph.all_nodes():  # shapes in the file may be those of other batches
        for value in node.outputs:
            value.shape = None
    return ir.Model(graph, ir_version=model.ir_version)


def _common_shape(arrays: list[np.ndarray]) -> ir.Shape | None:
    """Sizes that all arrays share; axis 0 is left open."""
    if len({a.ndim for a in arrays}) > 1:
        return None
    sizes = [{a.shape[axis] for a in arrays} for axis in range(arrays[0].ndim)]
    return ir.Shape([s.pop() if len(s) == 1 else None for s in sizes])
