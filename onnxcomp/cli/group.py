"""A group of verbs that names the nearest one when a word is none of them."""

from __future__ import annotations

from difflib import get_close_matches

import rich_click as click


class Group(click.RichGroup):
    """As click's, with one kind of message for a verb that is not there."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        stray = args and args[0] not in known and not args[0].startswith("-")
        if stray and not ctx.resilient_parsing:  # a shell that completes wants no message
            near = get_close_matches(args[0], known, 1)
            advice = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(known)}."
            raise click.UsageError(f"No verb {args[0]!r}. {advice}", ctx)
        return super().resolve_command(ctx, args)
