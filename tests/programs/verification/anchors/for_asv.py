"""A suite for plain asv: no setup, so that asv chooses number and repeats itself."""

from __future__ import annotations

from verification.anchors.functions import asked, function_of


class Forward:
    """Each function once warmed up by asv, then timed."""

    params = asked()
    param_names = ("backend", "length")
    timeout = 600

    def time_forward(self, backend: str, length: int) -> None:
        """Call."""
        function_of(backend, length)()
