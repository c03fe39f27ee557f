"""Write the report of the reference records, as a reader's own sweep gives it, beside the docs.

python docs/build_reference.py
"""

from __future__ import annotations

from pathlib import Path

from results.report import write_report

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "reference" / "epyc-2-cores" / "speed"
FILE = ROOT / "docs" / "reference.html"


def build(out: Path = FILE) -> None:
    """Write the page to `out`; equal records give equal bytes."""
    write_report([FOLDER], ["html"], out)


if __name__ == "__main__":
    build()
