"""Libraries that take seconds to import: not before a test asks for something of theirs."""

from __future__ import annotations

from typing import Any

import pytest


class Lazy:
    """A module that is imported at the first use; without it, the test skips.

    Args:
        name: the module's.
        extra: of pyproject.toml, that brings it.
    """

    def __init__(self, name: str, extra: str) -> None:
        self._name, self._extra = name, extra

    def __getattr__(self, attribute: str) -> Any:
        module = pytest.importorskip(self._name, reason=f"needs the extra '{self._extra}'")
        return getattr(module, attribute)


transformers: Any = Lazy("transformers", "peers")
