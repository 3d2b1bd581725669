"""Are all texts of a model UTF-8? protobuf hands out others as bytes, and can't write them again."""

from __future__ import annotations

from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import Message  # type: ignore[import-untyped]

from onnxcomp.errors import ModelError
from onnxcomp.report.text import printable


def check_utf8(message: Message, where: str) -> None:
    """Looks at every text field of a message and of those inside it; no deeper than protobuf parses.

    Args:
        message: A model, or a part of one.
        where: Names it in errors.

    Raises:
        ModelError: A text is not UTF-8.
    """
    texts, messages = _fields(message.DESCRIPTOR)
    for name in texts:
        value = getattr(message, name)
        for text in (value,) if isinstance(value, str | bytes) else value:
            if isinstance(text, bytes):
                raise ModelError(
                    f"{where} has a name that is not UTF-8: {printable(text)}", hint="Export the model again."
                )
    for name, repeated in messages:
        if repeated:
            for item in getattr(message, name):
                check_utf8(item, where)
        elif message.HasField(name):
            check_utf8(getattr(message, name), where)


@cache
def _fields(descriptor: Descriptor) -> tuple[tuple[str, ...], tuple[tuple[str, bool], ...]]:
    """Names of the text fields; (name, repeated) of the message fields."""
    fields = descriptor.fields
    texts = tuple(f.name for f in fields if f.type == FieldDescriptor.TYPE_STRING)
    messages = tuple((f.name, f.is_repeated) for f in fields if f.type == FieldDescriptor.TYPE_MESSAGE)
    return texts, messages
