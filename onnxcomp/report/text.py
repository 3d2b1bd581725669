"""Text that comes from a model, made safe to print: a node may be called `\\x1b[2J`."""

from __future__ import annotations

import unicodedata

# Control, format (bidirectional overrides among them), surrogate, private use, unassigned, line, paragraph separator.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


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
