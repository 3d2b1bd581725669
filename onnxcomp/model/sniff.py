"""What a file is when it is not an ONNX model: told by its first bytes, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

HEAD_BYTES = 512
"""How many bytes from the start of a file `identify` wants."""


@dataclass(frozen=True)
class Guess:
    """Args: what: Completes "… is ___". hint: What to do next."""

    what: str
    hint: str


@dataclass(frozen=True)
class _Magic:
    offset: int
    magic: bytes
    guess: Guess


_FORMATS: tuple[_Magic, ...] = (
    _Magic(
        0,
        b"version https://git-lfs",
        Guess("a Git LFS pointer, not the file itself", "Fetch the real file: git lfs pull."),
    ),
    _Magic(
        4,
        b"ORTM",
        Guess(
            "an ONNX Runtime flatbuffer (.ort)",
            "It can't be converted back: give the .onnx file that it was made from, and convert the result again.",
        ),
    ),
    _Magic(
        4,
        b"TFL3",
        Guess(
            "a TensorFlow Lite model", "Convert it first: python -m tf2onnx.convert --tflite FILE --output model.onnx."
        ),
    ),
    _Magic(
        0,
        b"PK\x03\x04",
        Guess(
            "a zip archive, as PyTorch (.pt, .pth) and Keras write them",
            "Load it in its framework and export it, e.g. torch.onnx.export.",
        ),
    ),
    _Magic(
        0,
        b"\x80\x02",
        Guess("a pickle, as older PyTorch (.pt, .pth) writes them", "Load it in PyTorch and call torch.onnx.export."),
    ),
    _Magic(
        0,
        b"\x89HDF",
        Guess("an HDF5 file, as older Keras (.h5) writes them", "Convert it first: python -m tf2onnx.convert --keras."),
    ),
    _Magic(0, b"GGUF", Guess("a GGUF file", "It holds weights only: export the model to ONNX from its framework.")),
    _Magic(8, b"{", Guess("a safetensors file", "It holds weights only: export the model to ONNX from its framework.")),
    _Magic(0, b"\x1f\x8b", Guess("a gzip file", "Unpack it first: gunzip or tar xzf.")),
    _Magic(257, b"ustar", Guess("a tar archive", "Unpack it first: tar xf.")),
    _Magic(0, b"ptrt", Guess("a TensorRT engine", "Give the .onnx file that it was built from.")),
    _Magic(0, b"ftrt", Guess("a TensorRT engine", "Give the .onnx file that it was built from.")),
)

_TEXT = Guess(
    "a text file", "Give a binary .onnx file; a page saved from a web site is not the model that it links to."
)
_TENSORFLOW = Guess(
    "probably a TensorFlow graph (.pb)",
    "Convert it first: python -m tf2onnx.convert --graphdef FILE --output model.onnx.",
)
_OTHER = Guess(
    "not an ONNX model", "Check that the download or export is complete, and open it in Netron to see what it is."
)


def identify(head: bytes, suffix: str = "") -> Guess:
    """Names the format of something that did not parse as an ONNX model.

    Args:
        head: The first `HEAD_BYTES` bytes.
        suffix: Of the file's name, with its dot: tells a TensorFlow protobuf from another.

    >>> identify(b"GGUF\\x03\\x00").what
    'a GGUF file'
    """
    for entry in _FORMATS:
        if head[entry.offset :].startswith(entry.magic):
            return entry.guess
    if _is_text(head):
        return _TEXT
    return _TENSORFLOW if suffix.lower() in {".pb", ".pbtxt"} else _OTHER


def _is_text(head: bytes) -> bool:
    # The last character may be cut in the middle, hence "ignore".
    text = head.decode("utf-8", "ignore")
    return (
        len(text.encode()) > len(head) - 4 and bool(text) and all(c.isprintable() or c in "\t\r\n\ufeff" for c in text)
    )
