"""Text as Markdown: escaping, and HTML's inline tags taken out."""

from __future__ import annotations

import re

from markupsafe import escape

_LIST_ITEM = re.compile(r"^(\d{0,9})([-+.)])(?=\s|$)")
"""What begins a list where it begins a line."""


class _Plain(str):
    """Markdown that is meant as Markdown."""


def _attribute(text: str) -> _Plain:
    """Return text that an attribute of a tag within Markdown shows as it is."""
    escaped = str(escape(text))
    for mark in "[]`":
        escaped = escaped.replace(mark, f"&#{ord(mark)};")
    return _Plain(escaped)


def escape_markdown(value: object) -> str:
    """Return text that Markdown shows as it is, in a table too."""
    if isinstance(value, _Plain):
        return value
    text = str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|~$#":
        text = text.replace(mark, f"\\{mark}")
    return _LIST_ITEM.sub(r"\1\\\2", text)
