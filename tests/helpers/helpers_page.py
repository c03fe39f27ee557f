"""The report's page as tests read it: without the scripts and the data that it always has."""

from __future__ import annotations

import re
from pathlib import Path

from results.page.frame import SCRIPTS, TEMPLATES

_DATA = re.compile(r'<script type="application/json" id="[\w-]+">[^<]*</script>')
_DOWNLOAD = re.compile(r' href="data:application/gzip;base64,[\w+/=]*"')
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="[^"]*">')


def unscripted(page: Path | str) -> str:
    """Return a page without its own scripts, data and download; a script more stays in it.

    Raises:
        AssertionError: if it does not hold each of its own scripts once.
    """
    text = page.read_text() if isinstance(page, Path) else page
    for name in SCRIPTS:
        own = f"<script>{(TEMPLATES / name).read_text(encoding='utf-8')}</script>"
        assert text.count(own) == 1, name
        text = text.replace(own, "")
    return _POLICY.sub("", _DOWNLOAD.sub("", _DATA.sub("", text)))
