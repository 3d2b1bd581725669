"""A choice among words that names the nearest one when a word is none of them."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import rich_click as click


class Choice(click.Choice[str]):
    """As click's, with a suggestion in its message."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        near = get_close_matches(str(value), [str(choice) for choice in self.choices], 1)
        advice = f" Did you mean {near[0]!r}?" if near else ""
        return super().get_invalid_choice_message(value, ctx) + advice
