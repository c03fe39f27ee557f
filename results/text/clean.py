"""Names from records, made safe to show."""

from __future__ import annotations


def clean(text: object) -> str:
    """Return `text` on one line, without what no file or page can hold."""
    if isinstance(text, str) and text.isprintable():
        return text
    safe = str(text).encode("utf-8", "replace").decode()
    if safe.isprintable():
        return safe
    unsafe = {c for c in set(safe) if not c.isprintable()}  # far fewer than there are letters
    return safe.translate(
        {ord(c): " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in unsafe}
    )
