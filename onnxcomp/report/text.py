"""Text that comes from a model, made safe to print: a node may be called `\\x1b[2J`."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

# Control, format (bidirectional overrides among them), surrogate, private use, unassigned, line, paragraph separator.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

# Inside a string no line breaks, so that this is always an array.
_NUMBERS = re.compile(r"\[\n *([-+.\deE]+(?:,\n *[-+.\deE]+)*)\n *\]")


def printable(text: object, limit: int = 80) -> str:
    """The text without characters that act on a terminal or hide, at most `limit` characters long.

    Args:
        text: A name from a file; anything that is not a string is shown by `str`.
        limit: Most characters; a longer text keeps its beginning and its end, which tell node names apart.

    >>> printable("conv\\x1b[2J1")
    'conv?[2J1'
    >>> printable("layer." * 9, limit=12)
    'layer.…ayer.'
    """
    raw = str(text)
    # Cut before cleaning, so that a name of a gigabyte costs nothing.
    if len(raw) > limit:
        head = limit // 2
        raw = raw[:head] + "…" + raw[len(raw) - (limit - head - 1) :]
    return "".join("?" if unicodedata.category(c) in _UNSAFE else c for c in raw)


def meant(word: str, known: Iterable[str]) -> str | None:
    """A hint that names the known word that was probably meant; None if none is near.

    >>> meant("tpo1", ["top1", "mse"]), meant("x", ["top1"])
    ("did you mean 'top1'?", None)
    """
    near = get_close_matches(word, list(known), 1)
    return f"did you mean {near[0]!r}?" if near else None


def complaint(message: str) -> str:
    """What pydantic says of a value, to stand behind a colon; names in it keep their capitals.

    >>> complaint("Value error, cell Conv_1 keeps nothing"), complaint("Field required")
    ('cell Conv_1 keeps nothing', 'field required')
    """
    text = message.removeprefix("Value error, ")
    return text if text != message else text[:1].lower() + text[1:]


def plural(count: int, noun: str) -> str:
    """A number of things.

    >>> plural(1, "node"), plural(1200, "node")
    ('1 node', '1,200 nodes')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def encodable(text: str) -> str:
    """The text without lone surrogates, which file names that are not UTF-8 hold and which no report file can.

    >>> encodable("m\\udcff.onnx")
    'm?.onnx'
    """
    return text.encode("utf-8", errors="replace").decode()


def harmless_json(text: str) -> str:
    """JSON with what acts on a terminal escaped, where it stands inside strings: the same data.

    >>> print(harmless_json('{"node": "a\\x9b2J"}'))
    {"node": "a\\u009b2J"}
    """
    # The only unsafe characters outside strings are the line breaks of the layout, which stay.
    return "".join(json.dumps(c)[1:-1] if c != "\n" and unicodedata.category(c) in _UNSAFE else c for c in text)


def on_one_line(text: str) -> str:
    """Indented JSON with its arrays of numbers on one line each: the same data, for people and in fewer bytes.

    >>> print(on_one_line('{\\n "counts": [\\n  1,\\n  -2.5e3\\n ]\\n}'))
    {
     "counts": [1, -2.5e3]
    }
    """
    return _NUMBERS.sub(lambda found: f"[{', '.join(found[1].replace(',', ' ').split())}]", text)
