"""The reference records that ship with attnbench: where they lie, wherever it is installed."""

from __future__ import annotations

from pathlib import Path

from results.runs import NoRunError
from results.schema import RECORDS

REFERENCE = Path(__file__).with_name("reference")


def reference_folders(root: Path = REFERENCE) -> tuple[Path, ...]:
    """Return the run folders among the reference records, by name.

    Raises:
        NoRunError: if there is none: the installation is not whole.
    """
    found = tuple(sorted(f.parent for f in root.glob(f"*/{RECORDS}")))
    if not found:
        raise NoRunError(f"{root}: no reference records here; name a run folder")
    return found
