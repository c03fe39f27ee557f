"""From records to answers: load, fit, compare, plot, report. Reads files; never imports torch.

>>> import results
>>> from results.load import load
>>> found = results.recommend(load("runs/today").frame, seq_len=4096, mode="forward",
...                           device="cpu")  # doctest: +SKIP
>>> found.winner.label  # doctest: +SKIP
'linformer'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from results.recommendation import recommend

__all__ = ["recommend"]


def __getattr__(name: str) -> Any:
    """Load what needs pandas when it is asked for: whoever measures knows `schema` alone."""
    if name == "recommend":
        from results.recommendation import recommend

        return recommend
    raise AttributeError(f"module 'results' has no attribute {name!r}")
