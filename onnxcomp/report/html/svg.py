"""Elements of inline SVG. Colours are classes of the style sheet, so that pictures follow light and dark."""

from __future__ import annotations

from markupsafe import Markup, escape

from onnxcomp.report.text import printable


def tag(name: str, *children: str | Markup, **attributes: object) -> Markup:
    """An element; whatever is not markup already is made printable and escaped. `_` in an attribute stands for `-`.

    >>> tag("title", "a<b\\x1b")
    Markup('<title>a&lt;b?</title>')
    >>> tag("rect", x=1.25, class_="after")
    Markup('<rect x="1.25" class="after"></rect>')
    """
    opened = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _value(value)) for key, value in attributes.items()
    )
    inside = Markup("").join(c if isinstance(c, Markup) else escape(printable(c, 400)) for c in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), opened, inside)


def picture(width: float, height: float, *shapes: Markup, css: str, label: str = "") -> Markup:
    """A picture that fills the width it is given; text stays outside, since it would be stretched.

    Args:
        width, height: Of its own units.
        label: What it shows, for those who don't see it; without one it only repeats figures beside it.
    """
    seen: dict[str, object] = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}
    view = f"0 0 {_value(width)} {_value(height)}"
    return tag("svg", *shapes, viewBox=view, preserveAspectRatio="none", class_=css, focusable="false", **seen)


def _value(value: object) -> str:
    if isinstance(value, Markup):
        return value
    return f"{value:.6g}" if isinstance(value, float) else printable(value, 400)
