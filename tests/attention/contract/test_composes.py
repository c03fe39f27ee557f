"""What composes with what: each cell of the table in docs/import.md against its probe."""

from __future__ import annotations

import json
from pathlib import Path

import composes
import pytest
from composes import BACKENDS, DISTRIBUTED, PROBES
from helpers_ranks import run_ranks

PAGE = Path(__file__).parents[3] / "docs" / "import.md"
RANKS = 2


def _table() -> dict[str, dict[str, str]]:
    """Read the page's table: by row, then by backend."""
    lines = iter(PAGE.read_text().splitlines())
    head = next(line for line in lines if all(f"`{name}`" in line for name in BACKENDS))
    names = [cell.strip(" `") for cell in head.strip("|").split("|")[1:]]
    next(lines)  # the rule below the head
    rows: dict[str, dict[str, str]] = {}
    for line in lines:
        if not line.startswith("|"):
            break
        what, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        rows[what] = dict(zip(names, cells, strict=True))
    return rows


TABLE = _table()


def test_the_table_is_of_every_probe_and_backend():
    assert list(TABLE) == [*PROBES, *DISTRIBUTED]
    assert all(tuple(row) == BACKENDS for row in TABLE.values())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "what", [pytest.param(x, marks=[pytest.mark.slow] * (x == "torch.compile")) for x in PROBES]
)
@pytest.mark.filterwarnings("ignore")  # torch's own, of what is deprecated in its tracing
def test_a_cell_is_what_happens(what: str, backend: str):
    assert PROBES[what](backend) == TABLE[what][backend]


@pytest.fixture(scope="module")
def over_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Return what each rank found."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(composes.__file__, RANKS, folder)
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.slow
@pytest.mark.parametrize("what", DISTRIBUTED)
def test_a_cell_is_what_happens_over_ranks(what: str, over_ranks: list[dict[str, str]]):
    for found in over_ranks:
        assert {b: found[f"{what} {b}"] for b in BACKENDS} == TABLE[what]
