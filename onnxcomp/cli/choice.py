"""A choice among words that names the nearest one when a word is none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

import rich_click as click


class Choice(click.Choice[str]):
    """As click's, with a suggestion in its message.

    Args:
        words: What there is.
        synonyms: Other words that users say → the word that they mean.
    """

    def __init__(self, words: Sequence[str], synonyms: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(words)
        self._synonyms = synonyms

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        near = get_close_matches(str(value), list(self.choices), 1)
        meant = self._synonyms.get(str(value).lower(), near[0] if near else None)
        return super().get_invalid_choice_message(value, ctx) + (f" Did you mean {meant!r}?" if meant else "")
