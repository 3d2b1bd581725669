"""Models that mean harm, or seem to, and the command lines that meet them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

SIZE = 4096
VALUES = np.random.default_rng(0).standard_normal((64, 64)).astype("<f4")
FEEDS = np.random.default_rng(1).standard_normal((16, 64)).astype(np.float32)

DATA = ("--calibration", "DATA")
VERBS: dict[str, Sequence[str]] = {
    "optimize": ("optimize", "MODEL", *DATA),
    "simplify": ("simplify", "MODEL", "--eval", "DATA"),
    "quantize static": ("quantize", "MODEL", *DATA),
    "quantize dynamic": ("quantize", "MODEL", "--mode", "dynamic", *DATA),
    "quantize weight-only": ("quantize", "MODEL", "--mode", "weight-only", *DATA),
    "quantize fp16": ("quantize", "MODEL", "--mode", "fp16", *DATA),
    "quantize auto": ("quantize", "MODEL", "--mode", "auto", *DATA),
    "prune": ("prune", "MODEL", "--ratio", "0.25", *DATA),
    "factorize": ("factorize", "MODEL", "--energy", "0.9", "--allow-slower", *DATA),
    "verify": ("verify", "MODEL", "--against", "GOOD", "--eval", "DATA"),
    "verify --against": ("verify", "GOOD", "--against", "MODEL", "--eval", "DATA"),
    "bench": ("bench", "MODEL", "--calibration", "DATA"),
    "bench, second": ("bench", "GOOD", "MODEL", "--calibration", "DATA"),
}
"""Every verb that loads a model, in its modes and with the model in every place that it may take."""


def command(verb: str, model: Path, good: Path, data: object) -> list[str]:
    """The words of a verb with its files."""
    files = {"MODEL": str(model), "GOOD": str(good), "DATA": str(data)}
    return [files.get(word, word) for word in VERBS[verb]]


def two_products() -> onnx.ModelProto:
    """`y = relu(x · weight) · other`, N × 64 → N × 64."""
    text = """<ir_version: 10, opset_import: ["": 21]> g (float[N,64] x) => (float[N,64] y) {
        a = MatMul(x, weight) b = Relu(a) y = MatMul(b, other) }"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(VALUES / 8, "weight"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(VALUES.T.copy() / 8, "other"))
    return proto


def outside(proto: onnx.ModelProto, path: Path, **told: str) -> Path:
    """Writes the model with `weight` in another file, which the keys tell."""
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in told.items():
        tensor.external_data.add(key=key, value=value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path


@dataclass(frozen=True)
class Case:
    """A way to say where weights lie.

    Args:
        arrange: Puts files into the folder of the model.
        told: Keys of the external data.
        says: What the refusal says; empty: the model is good.
        dims: Of the tensor, where they lie.
    """

    arrange: Callable[[Path], object]
    told: dict[str, str]
    says: str = ""
    dims: tuple[int, ...] = field(default=())

    def write(self, folder: Path) -> Path:
        """The model of this case."""
        (folder.parent / "secret").write_bytes((VALUES / 8).tobytes())
        self.arrange(folder)
        proto = two_products()
        if self.dims:
            proto.graph.initializer[0].dims[:] = self.dims
        return outside(proto, folder / "model.onnx", **self.told)


def _beside(folder: Path, name: str = "w.data") -> None:
    (folder / name).write_bytes((VALUES / 8).tobytes())


CASES: dict[str, Case] = {
    "parent": Case(lambda f: None, {"location": "../secret"}, "outside the model's folder"),
    "absolute": Case(lambda f: None, {"location": "/etc/passwd"}, "absolute path"),
    "symlink out": Case(lambda f: (f / "w.data").symlink_to("../secret"), {"location": "w.data"}, "leads out"),
    "folder link out": Case(lambda f: (f / "sub").symlink_to(".."), {"location": "sub/secret"}, "leads out"),
    "symlink inside": Case(lambda f: (_beside(f, "real"), (f / "w.data").symlink_to("real")), {"location": "w.data"}),
    "hard link": Case(lambda f: (f / "w.data").hardlink_to(f.parent / "secret"), {"location": "w.data"}, "hard links"),
    "negative offset": Case(_beside, {"location": "w.data", "offset": "-4"}, "negative offset"),
    "length beyond the file": Case(
        _beside, {"location": "w.data", "length": str(2 * 4 * SIZE)}, "declares 32,768 bytes"
    ),
    "length below the shape": Case(_beside, {"location": "w.data", "length": "4"}, "declares 4 bytes"),
    "dims of a billion": Case(_beside, {"location": "w.data"}, "needs the bytes", (10**9, 64)),
}
"""The rows of the containment matrix that concern data files."""


def nested_beyond_protobuf() -> bytes:
    """A model with If in If, sixty deep. By hand, as protobuf's own writer stops there too."""
    content = b""
    for _ in range(60):
        attribute = field_of(6, content) + b"\xa0\x01\x05"
        content = field_of(1, field_of(4, b"If") + field_of(5, attribute))
    return b"\x08\x0a" + field_of(7, content)


def field_of(number: int, payload: bytes) -> bytes:
    """A field of bytes as protobuf writes it."""
    size, length = b"", len(payload)
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + payload
