"""The reference records that ship with attnbench: where they lie, wherever it is installed."""

from __future__ import annotations

from pathlib import Path

from results.records.load import NoRunError
from results.schema import RECORDS

APART = ("claims", "compiled", "context", "threads", "short", "short-causal")
"""Sweeps whose records answer another question than which to choose."""

REFERENCE = Path(__file__).parents[1] / "reference"


def reference_folders(root: Path = REFERENCE) -> tuple[Path, ...]:
    """Return the run folders among the reference records, that a choice rests on.

    They lie by machine and sweep: ``results/reference/<machine>/<sweep>/``.

    Those of claims are left out: the calls in them are there for their growth, and of a newer
    measuring code, beside which the others would count as outdated. Those of context are of ranks
    that share a machine: no choice rests on them. Those of threads and of short lengths are of
    another machine and of the newer measuring code, too.

    Raises:
        NoRunError: if there is none: the installation is not whole.
    """
    every = sorted(f.parent for f in root.glob(f"*/*/{RECORDS}"))
    found = tuple(folder for folder in every if folder.name not in APART)
    if not found:
        raise NoRunError(f"{root}: no reference results here; give a run folder")
    return found
