"""Measure the promises of the method: ``python -m verification [--short] [--only NAME,…]``."""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from suites.measure.machine import environment, machine
from suites.parsing import parse_span
from verification import IN_PIECES, PROMISES, Measured, Report, Scale, broken
from verification.pieces import FOLDER, Pieces
from verification.show import table

OUT = Path(__file__).parents[3] / "results" / "reference" / "method" / "verified.json"

IN_PIECES_BY = {"--pairs": "repeated_runs", "--repetitions": "time_to_answer"}
"""Options that say how much of a promise is done."""


def measure(name: str, scale: Scale, report: Report, pieces: Pieces | None = None) -> Measured:
    """Try one promise; a test that cannot run to its end is a broken promise.

    Args:
        name: of the promise.
        scale: how much is tried.
        report: told what is being done.
        pieces: of a promise that is measured in pieces, how much of it; ``None`` = all.
    """
    started = time.perf_counter()
    promise = ""
    try:
        module = importlib.import_module(f"verification.{name}")
        promise = (module.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        more = [pieces] if name in IN_PIECES else []
        got = module.measure(scale, report, *more)
    except Exception as error:
        traceback.print_exc()
        got = broken(f"{type(error).__name__}: {error}")
    return replace(got, name=name, promise=promise, seconds=time.perf_counter() - started)


def write(results: Sequence[Measured], scale: Scale, file: Path) -> None:
    """Write the results with what they were measured on: no host, user or path.

    What the file holds of other promises, at the same scale and on the same kind of machine,
    stays: another kernel of the system, or some bytes of memory more, make no other kind.
    """
    content: dict[str, Any] = {
        "schema": 1,
        "scale": scale,
        "measured": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": machine(),
        "environment": environment(),
    }
    found = {got.name: asdict(got) for got in results}
    held = json.loads(file.read_text()) if file.is_file() else {}
    if (held.get("scale"), kind_of(held.get("machine", {}))) == (scale, kind_of(machine())):
        found = {one["name"]: one for one in held["promises"]} | found
    content["promises"] = [found[name] for name in PROMISES if name in found]
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False)
    partly = file.with_suffix(".partly")
    partly.write_text(text + "\n")
    partly.replace(file)


KIND = ("cpu", "cores", "cores_total", "os", "arch", "gpu", "gpu_memory_bytes")
"""What machines of one kind have in common."""


def kind_of(about: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells a kind of machine from others."""
    return tuple(about.get(name) for name in KIND)


def _finite(value: Any) -> Any:
    """Return JSON content with null in the place of what is no JSON number."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def say(text: str, to: TextIO | None = None) -> None:
    """Write a line at once."""
    stream = to or sys.stdout
    stream.write(text + "\n")
    stream.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return 0 if every promise that could be tried was kept, else 1."""
    parser = argparse.ArgumentParser(prog="python -m verification", description=__doc__)
    parser.add_argument("--short", action="store_true", help="less of everything, as CI runs it")
    parser.add_argument("--only", metavar="NAME,…", help=f"of {', '.join(PROMISES)}")
    parser.add_argument(
        "--out", type=Path, metavar="FILE",
        help="what it holds of other promises stays; default: "
        "results/reference/method/verified.json, and nothing with --short or --only",
    )  # fmt: skip
    for option, name in IN_PIECES_BY.items():
        parser.add_argument(
            option, type=int, metavar="N", help=f"of {name}, in all; default: as promised"
        )
    long = " and ".join(IN_PIECES)
    parser.add_argument(
        "--within",
        type=parse_span,
        default=math.inf,
        metavar="TIME",
        help=f"of {long}, as 30m or 2h: what would end later is left for the next call",
    )
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, metavar="DIR",
        help=f"where {long} keep what is done; default: runs/verification",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    names = given.only.split(",") if given.only else list(PROMISES)
    if unknown := [name for name in names if name not in PROMISES]:
        parser.error(f"--only: no promise {unknown[0]!r}; there are {', '.join(PROMISES)}")
    counts = {}
    for option, name in IN_PIECES_BY.items():
        counts[name] = getattr(given, option.removeprefix("--"))
        if counts[name] is not None and (name not in names or counts[name] < 1):
            parser.error(f"{option}: expected 1 or more, with promise {name}")
    scale: Scale = "short" if given.short else "full"

    def report(line: str) -> None:
        say(f"  {line}", sys.stderr)

    results = []
    out = given.out or (OUT if scale == "full" and not given.only else None)
    for name in names:
        say(f"{name} …", sys.stderr)
        pieces = Pieces(counts.get(name), given.within, given.folder)
        results.append(measure(name, scale, report, pieces))
        if out is not None:  # after each: what is measured is not lost
            write(results, scale, out)
    say(table(results))
    if out is not None:
        say(f"Written to {out}")
    return int(any(got.passed is False for got in results))


if __name__ == "__main__":
    sys.exit(main())
