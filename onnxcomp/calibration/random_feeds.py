"""Random feeds for models without data: they show that a model runs and how fast, never how good it is."""

from __future__ import annotations

import math
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx_ir as ir

from onnxcomp.calibration.options import nearest
from onnxcomp.calibration.readers import DataKind, Feed, Reader, indexed
from onnxcomp.errors import DataError, LimitError, UsageError
from onnxcomp.model.signature import Port, Signature
from onnxcomp.runtime.host import detect_host

Shapes = Mapping[str, tuple[int, ...]]
"""Sizes of dynamic dimensions, by symbol (`{"seq": (128,)}`) or for a whole input (`{"x": (1, 3, 224, 224)}`)."""
MAX_BYTES = 16 << 30
"""The most that one random feed may take."""
MAX_SHARE = 0.25
"""Of the memory of the machine, for the same: the model needs some as well."""
DEFAULT_LIMIT = 2
"""Integers below this index any table that isn't trivial, and serve as masks."""


def random_reader(
    signature: Signature,
    count: int,
    *,
    shapes: Shapes | None = None,
    limits: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Reader:
    """A reader of random feeds, the same in each iteration.

    Floats are standard normal, booleans fair, integers uniform in `[0, limit)`.

    Args:
        signature: Of the model.
        count: Number of feeds.
        shapes: Sizes of dynamic dimensions; a symbol that it doesn't settle is 1.
        limits: Exclusive upper bound of an integer input, by name (the size of the table that it indexes); default 2.
        seed: Feed i depends on `(seed, i)` only.

    Raises:
        UsageError: `shapes` names what the model doesn't have, or contradicts it.
        DataError: An input of unknown rank without a shape, one that takes no numbers, or one that is always empty.
        LimitError: A feed would be too large for this machine.
    """
    for port in signature.inputs:
        if port.dtype is None:
            raise DataError(
                f"input {port.name!r} takes no numbers, so no random feeds can be made", hint="Give real ones."
            )
    resolved = resolve_shapes(signature, shapes or {})
    total, most = 0, min(MAX_BYTES, int(MAX_SHARE * detect_host().memory_bytes) or MAX_BYTES)
    for port in signature.inputs:
        assert port.dtype is not None
        if 0 in resolved[port.name]:
            raise DataError(f"input {port.name!r} is empty by its own shape {list(resolved[port.name])}")
        total += math.prod(resolved[port.name]) * port.dtype.itemsize
        if total > most:
            raise LimitError(
                f"input {port.name!r} of shape {list(resolved[port.name])} takes one feed over {most / 2**30:.1f} GiB",
                hint="Give smaller shapes (--shape), or use a larger machine.",
            )

    def feed(i: int) -> Feed:
        return {
            port.name: _values(port, resolved[port.name], (limits or {}).get(port.name, DEFAULT_LIMIT), (seed, i, k))
            for k, port in enumerate(signature.inputs)
        }

    return indexed(lambda: feed, count, name=f"random:{count}", kind=DataKind.RANDOM)


def resolve_shape(port: Port, shapes: Shapes) -> tuple[int, ...]:
    """The shape of one input as numbers; what `shapes` leaves open is 1.

    >>> resolve_shape(Port("ids", np.dtype("int64"), ("batch", "seq")), {"seq": (128,)})
    (1, 128)

    Raises:
        UsageError: A whole shape that contradicts the model.
        DataError: The model doesn't tell the rank, and `shapes` doesn't either.
    """
    whole = shapes.get(port.name)
    if whole is None and port.shape is None:
        raise DataError(
            f"input {port.name!r} has no known rank", hint=f"Give its shape: --shape {port.name}=1,3,224,224"
        )
    if whole is None:
        return tuple(d if isinstance(d, int) else _size(d, shapes) for d in port.shape or ())
    if port.shape is not None and (
        len(whole) != len(port.shape)
        or any(isinstance(dim, int) and dim != size for dim, size in zip(port.shape, whole, strict=True))
    ):
        model = ",".join("?" if d is None else str(d) for d in port.shape)
        raise UsageError(f"shape {','.join(map(str, whole))} doesn't fit input {port.name!r}: the model says {model}")
    return whole


def resolve_shapes(signature: Signature, shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The shapes of all inputs. A whole shape given for one input settles its symbols in the others too.

    Raises:
        UsageError: An unknown name, or a size below 1.
        DataError: As for `resolve_shape`.
    """
    ports = {port.name: port for port in signature.inputs}
    symbols = signature.dynamic_symbols()
    settled: dict[str, tuple[int, ...]] = dict(shapes)
    for name, sizes in shapes.items():
        if name not in ports and name not in symbols:
            raise UsageError(f"no input or dynamic dimension {name!r}", hint=nearest(name, [*ports, *symbols]))
        told = ports[name].shape if name in ports else None
        absurd = min(sizes, default=1) < 1 and sizes != told  # a model may say itself that an input is empty
        if absurd or (name not in ports and len(sizes) != 1):
            raise UsageError(f"shape {name}={','.join(map(str, sizes))}: sizes are above zero, one for a dimension")
    for name in ports.keys() & shapes.keys():
        for dim, size in zip(ports[name].shape or (), resolve_shape(ports[name], shapes), strict=False):
            if isinstance(dim, str) and dim not in ports:
                settled.setdefault(dim, (size,))  # exporters reuse names for different sizes: no contradiction
    return {name: resolve_shape(port, settled) for name, port in ports.items()}


def _size(dim: str | None, shapes: Shapes) -> int:
    sizes = shapes.get(dim, ()) if dim is not None else ()
    return sizes[0] if len(sizes) == 1 else 1


def _values(port: Port, shape: tuple[int, ...], limit: int, key: tuple[int, ...]) -> np.ndarray:
    assert port.dtype is not None
    rng = np.random.default_rng(key)
    kind = ir.DataType.from_numpy(port.dtype)
    if port.dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if kind.is_integer():
        return rng.integers(0, max(1, min(limit, ml_dtypes.iinfo(port.dtype).max + 1)), shape, np.int64).astype(
            port.dtype
        )
    if np.issubdtype(port.dtype, np.complexfloating):
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(port.dtype)
    return rng.standard_normal(shape, np.float32).astype(port.dtype)
