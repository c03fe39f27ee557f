"""Hostile records by the million: nothing but the documented errors may leave the readers.

    PYTHONPATH=tests/helpers python tests/programs/fuzz_records.py --count 1000000 --seed 0

A record is made from (seed, index) alone. Every one goes through ``load``, many to a file; every
`TABLES_EVERY`-th file through the tables, the exports and ``merge`` as well; and `--reports`
small runs, which take a second each, become a report. Exit code 1 on the first error that is not
documented, with the record that raises it; ``--only INDEX`` makes that record again.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import json
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import synthetic
import synthetic_quality

from results.analysis.analysis import Analysis
from results.export.asv import export_asv
from results.export.asv_history import ExportError
from results.export.tables import TABLES, export_table
from results.records.load import NoRunError, Run, load
from results.records.merge import merge
from results.report import ReportError, write_report
from results.schema import LATER_FIELDS, RECORDS, STATUSES, content_id

DOCUMENTED = (NoRunError, ExportError, ReportError, OSError)
BATCH = 2000
"""Lines of a file."""
TABLES_EVERY = 25
"""One file in so many also becomes tables and exports."""
TABLE_LINES = 150
REPORT_LINES = 12

NAMES: tuple[str, ...] = (
    "", " ", "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "javascript:alert(1)",
    "</style><svg onload=alert(1)>", "' onmouseover='alert(1)", "a|b|c", "`x`", "a\nb\r\nc",
    "\x1b[31mred\x1b]0;title\x07", "\u202eevil\u2066", "../../x", "/etc/passwd", "..\\..\\x",
    "C:\\x", "x" * 100_000, "\U0001f600\U0001f468\u200d\U0001f469", "\ud800", "\x00", "\ufeff",
    "\uffff", "$x^$", "_x", "%s%n", "{{ 7 * 7 }}", "{% raw %}", "&lt;b&gt;", "]]>", "<!--", "-->",
    "=1+1", "@x", "#", "*x*", "[a](javascript:b)", "![a](b)", "a,b;c\td", "full", "sdpa",
    "identity", "peer:", "peer:x", "projections", "lstm", "none", "nan", "inf", "true", "0",
    "e\u0301" * 50, "\u2028\u2029", "日本", "con", ".", "..", "~", "-", "--out", "x" * 101,
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 3, 7, 512, 1000, 2**31, 2**53, 2**53 + 1, 2**63, 2**64, 10**18, 10**19, -(2**63),
    0.0, -0.0, 0.5, 1e-300, 5e-324, 1e300, 1.7e308, 1e-30, 1e30, 1e-12, 1e9, -1.5, 1e16, 1e6,
    float("inf"), float("-inf"), float("nan"), True, False,
)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None, [], {}, [[]], [None], {"": None}, [0] * 1000, ["x"] * 100, {"a": {"b": {"c": []}}},
    {str(i): i for i in range(200)}, [[[[[[[[[[]]]]]]]]]], *STATUSES,
)  # fmt: skip
BYTES: tuple[bytes, ...] = (
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r", b"1e400", b"NaN", b"Infinity", b"-", b"9" * 5000,
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\ud800", b"\\u0000", b'"schema":1,',
    b"[" * 200, b"[" * 100_000, b'{"a":' * 3000, b"\xc3", b"\xed\xa0\x80", b"//", b"/**/", b"'",
    b"0.1e-999", b"1" * 400 + b".0", b"true", b"null", b"x" * 100_000, b"\t", b"\x0b",
)  # fmt: skip
LENGTHS: tuple[int, ...] = (0, 1, 2, 3, 64, 511, 512, 513, 1000, 4096, 2**20, 2**40, 2**53)
TIMES: tuple[float, ...] = (
    1e-300, 1e-12, 1e-9, 1e-6, 1e-3, 1.0, 60.0, 1e6, 1e9, 1e300, 5e-324, 0.1, 0.2,
)  # fmt: skip

Path_ = tuple[Any, ...]


@functools.cache
def bases() -> tuple[tuple[str, tuple[Path_, ...]], ...]:
    """Return valid records, as JSON, each with the places in it."""
    found: list[dict[str, Any]] = []
    law = synthetic.Law(1e-5, 1.0, options={"window": 64, "kinds": ["a", 1]}, extra={
        "profile": synthetic.profile(), "fixed_size": {"rank": 256},
        "gate": {"relative_l2": 1e-7, "budget": 1e-6, "rows": 64, "precision": "full",
                 "gradient": {"relative_l2": 1e-7, "precision": "reduced"}},
        "compiled": {"compile_time": 1.0, "graphs": 1, "breaks": 0, "recompiles": 0},
    })  # fmt: skip
    laws = {"full": law, "sdpa": synthetic.SEVEN["sdpa"], "xformers": synthetic.SEVEN["xformers"]}
    small: dict[str, Any] = {"lengths": (512,), "launches": 1}
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        folders = [
            synthetic.write_run(home / "1", laws, **small, floor=synthetic.Law(1e-7, 1.0)),
            synthetic.write_run(home / "2", laws, **small, modes=("decode",)),
            synthetic.write_run(home / "3", laws, **small, case={"level": "model", "model": "m"}),
            synthetic.write_peer_run(home / "4", launches=1, allocators=("default",)),
            synthetic_quality.write_quality(home / "5", synthetic_quality.few()),
        ]
        for folder in folders:
            for line in (folder / RECORDS).read_text().splitlines():
                record = json.loads(line)
                record["launch"]["predicted"] = {"latency": 0.1, "peak_memory": None}
                record["conditions"] = {"steal": 0.0, "throttled": 0, "gpu_throttled": []}
                found.append(record)
    return tuple((json.dumps(r), tuple(places(r))) for r in found)


def places(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    """Yield the path of everything in a JSON value."""
    if at:
        yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*at, index))


def line(seed: int, index: int) -> bytes:
    """Return the line of (seed, index), without its end."""
    rng = random.Random(f"{seed}:{index}")
    text, where = rng.choice(bases())
    record = json.loads(text)
    record["launch"]["index"] = index % 5  # else most would be second records of one launch
    record["run"] = f"run-{index // 5 % 40}"
    kind = rng.random()
    if kind < 0.35:
        _plausible(record, rng)
    elif kind < 0.85:
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            # An earlier one may have taken the place away.
            with contextlib.suppress(KeyError, IndexError, TypeError, AttributeError):
                _mutate(record, rng, rng.choice(where))
    if rng.random() < 0.8:
        _rehash(record)
    try:
        made = json.dumps(record, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    except (ValueError, TypeError, RecursionError):
        made = text.encode()
    if kind >= 0.85:
        for _ in range(rng.choice((1, 1, 2, 5))):
            made = _tear(made, rng)
    return made.replace(b"\n", b" ")


def _value(rng: random.Random) -> Any:
    # A copy: the next change may be inside of it.
    return copy.deepcopy(rng.choice(rng.choice((NAMES, NUMBERS, OTHERS))))


def _mutate(record: dict[str, Any], rng: random.Random, path: Path_) -> None:
    """Change one place: its value, its name, its number of times, its type."""
    target: Any = record
    for key in path[:-1]:
        target = target[key]
    last, how = path[-1], rng.random()
    if how < 0.6:
        target[last] = _value(rng)
    elif how < 0.7:
        del target[last]
    elif how < 0.75:
        target[last] = [target[last]]
    elif how < 0.8:
        target[last] = {rng.choice(NAMES): target[last]}
    elif how < 0.85 and isinstance(target, dict):
        target[rng.choice(NAMES)] = target.pop(last)
    elif how < 0.9 and isinstance(target, list):
        target.extend([target[last]] * rng.choice((1, 5, 70, 1000)))
    elif isinstance(target[last], dict):
        for _ in range(rng.choice((1, 3, 70))):
            target[last][f"{rng.choice(NAMES)[:200]}{rng.random()}"] = _value(rng)
    else:
        target[last] = copy.deepcopy(record[rng.choice(list(record))])


def _plausible(record: dict[str, Any], rng: random.Random) -> None:
    """Keep the form, and fill it with what a stranger may write into it."""
    case, launch = record["case"], record["launch"]
    for change in rng.choices(range(11), k=rng.choice((1, 2, 3))):
        if change == 0:
            rng.choice(case["arms"])["name"] = rng.choice(NAMES)
        elif change == 1:
            rng.choice(case["arms"])["options"] = {rng.choice(NAMES): _value(rng)}
        elif change == 2:
            case["seq_len"] = rng.choice(LENGTHS)
            case["key_len"] = rng.choice((case["seq_len"], rng.choice(LENGTHS)))
        elif change == 3:
            case[rng.choice(("batch", "num_heads", "head_dim", "threads", "seed"))] = rng.choice(
                (0, 1, 3, 2**53)
            )
        elif change == 4:
            record[rng.choice(("run", "machine", "environment", "commit"))] = rng.choice(NAMES)
        elif change == 5:
            record["status"] = rng.choice(STATUSES)
            record["reason"] = rng.choice(NAMES)
        elif change == 6:
            launch["index"] = rng.choice((0, 1, 2, 5, 2**53))
            launch["started"] = rng.choice((*NAMES, "0001-01-01T00:00:00+14:00", "9999-12-31"))
        elif change == 7 and record["arms"]:
            metrics = rng.choice(record["arms"])["metrics"]
            for metric in metrics.values():
                if "samples" in metric:
                    metric["samples"] = rng.choices(TIMES, k=rng.choice((1, 2, 7)))
                else:
                    metric["value"] = rng.choice((0, *TIMES, *LENGTHS))
        elif change == 8 and record["arms"]:
            arm = rng.choice(record["arms"])
            for part in ("cost", "expected", "gate", "compiled", "fixed_size"):
                if isinstance(arm.get(part), dict):
                    arm[part] = {k: rng.choice(NUMBERS[:-5]) for k in arm[part]}
            arm["kernel"] = rng.choice(NAMES)
        elif change == 10:
            case["kind"] = "of_a_plugin"
        elif change == 9:
            case[rng.choice(("model", "inputs", "task", "training", "weights"))] = rng.choice(
                NAMES
            )


def _rehash(record: dict[str, Any]) -> None:
    """Give the case the id that its content has: a stranger can do so too."""
    case = record.get("case")
    if not isinstance(case, dict):
        return
    named = {
        k: v
        for k, v in case.items()
        if k != "id" and (k not in LATER_FIELDS or v != LATER_FIELDS[k])
    }
    with contextlib.suppress(ValueError, TypeError, RecursionError):
        case["id"] = content_id(named)


def _tear(made: bytes, rng: random.Random) -> bytes:
    """Change bytes: cut, insert, repeat, overwrite."""
    at, how = rng.randrange(len(made) + 1), rng.random()
    if how < 0.2:
        return made[:at]
    if how < 0.6:
        return made[:at] + rng.choice(BYTES) + made[at:]
    end = min(len(made), at + rng.choice((1, 4, 30)))
    if how < 0.7:
        return made[:end] + made[at:end] + made[end:]
    if how < 0.8:
        return made[:at] + made[end:]
    return made[:at] + rng.randbytes(end - at) + made[end:]


# -- what is done with them ----------------------------------------------------------------------


def written(folder: Path, lines: Sequence[bytes]) -> Path:
    """Write a run of these lines, with descriptions that are as hostile."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORDS).write_bytes(b"".join(one + b"\n" for one in lines))
    for name in ("machines.jsonl", "environments.jsonl"):
        hostile = [{"id": n, "cpu": n, "gpu": v, "python": n, n: v} for n, v in zip(
            NAMES, (*NUMBERS, *OTHERS), strict=False)]  # fmt: skip
        good = {"id": content_id(synthetic.MACHINE), **synthetic.MACHINE}
        text = "".join(json.dumps(o) + "\n" for o in (good, *hostile))
        (folder / name).write_text(text)
    return folder


def read(folder: Path, count: int, outcomes: Counter[str] | None = None) -> str:
    """Load `count` lines; return the kind of outcome."""
    run = load(folder)
    own = sum(RECORDS in w for w in run.warnings)
    assert (
        len(run.records)
        + own
        + sum(int(w.split()[0]) for w in run.warnings if "duplicate" in w or "measuring code" in w)
        >= count
    ), "a line was neither used nor named"
    for warning in run.warnings:
        assert warning.isprintable(), repr(warning[:200])
        assert len(warning) < 1000
    if outcomes is not None:
        outcomes["records used"] += len(run.records)
        outcomes["lines named and left out"] += own
    return "files loaded"


def tabulate(folder: Path) -> str:
    """Take a run through the tables, the exports and ``merge``."""
    run: Run = load(folder)
    analysis = Analysis(run)
    for name in ("points", "fits", "crossovers", "speedups"):
        getattr(analysis, name)
    for name in TABLES:
        for form in ("csv", "json"):
            assert export_table(run, name, form) is not None
        export_table(run, name, "parquet", folder / "t.parquet")
    merged = merge([folder], folder / "merged")
    assert merged.num_records >= len(run.records)
    assert len(load(merged.folder).records) == len(run.records)
    try:
        export_asv(run, folder / "asv")
    except ExportError:
        return "tables, too many combinations for asv"
    return "tables"


def report(folder: Path) -> str:
    """Write the report of a run."""
    write_report([folder])
    return "report"


def attempt(act: Callable[[], str]) -> str:
    """Run; a documented error is an outcome of its own, any other is raised."""
    try:
        return act()
    except DOCUMENTED as error:
        return type(error).__name__


def batch(seed: int, start: int, stop: int, *, tables: bool = False) -> Counter[str]:
    """Check the records from `start` to `stop`; return what became of them."""
    lines = [line(seed, i) for i in range(start, stop)]
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        shown = sum(1 for one in lines if one.strip())
        folder = written(home / "all", lines)
        outcomes: Counter[str] = Counter()
        outcomes[attempt(lambda: read(folder, shown, outcomes))] += 1
        if tables:
            few = written(home / "few", lines[:TABLE_LINES])
            outcomes[attempt(lambda: tabulate(few))] += 1
    return outcomes


def one_report(seed: int, start: int) -> Counter[str]:
    """Write the report of `REPORT_LINES` records from `start` on."""
    with tempfile.TemporaryDirectory() as place:
        lines = [line(seed, i) for i in range(start, start + REPORT_LINES)]
        folder = written(Path(place), lines)
        return Counter({attempt(lambda: report(folder)): 1})


def first_failing(seed: int, start: int, stop: int, act: Callable[[Path], object]) -> int | None:
    """Return the index of the first record that fails by itself, None if it takes several."""
    for index in range(start, stop):
        with tempfile.TemporaryDirectory() as place:
            folder = written(Path(place), [line(seed, index)])
            try:
                attempt(lambda folder=folder: str(act(folder)))  # type: ignore[misc]
            except Exception:
                return index
    return None


Task = tuple[str, int, int, int]
"""What to do, seed, start and stop."""


def run_task(task: Task) -> tuple[Task, Counter[str], str]:
    """Do one task; return what became of it and, if it failed, the traceback."""
    what, seed, start, stop = task
    warnings.simplefilter("error")
    try:
        if what == "report":
            return task, one_report(seed, start), ""
        return task, batch(seed, start, stop, tables=what == "tables"), ""
    except Exception:
        return task, Counter(), traceback.format_exc()


def tasks(seed: int, count: int, reports: int) -> Iterator[Task]:
    """Yield everything that is to be done."""
    for number, start in enumerate(range(0, count, BATCH)):
        what = "tables" if number % TABLES_EVERY == 0 else "load"
        yield what, seed, start, min(count, start + BATCH)
    for number in range(reports):
        yield "report", seed, number * REPORT_LINES, (number + 1) * REPORT_LINES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Feed hostile records to the readers.")
    parser.add_argument("--count", type=int, default=10_000, help="records")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--reports", type=int, default=20, help="reports of a dozen records")
    parser.add_argument("--only", type=int, help="print and try this record alone")
    chosen = parser.parse_args(arguments)
    if chosen.only is not None:
        return alone(chosen.seed, chosen.only)
    outcomes: Counter[str] = Counter()
    started = time.monotonic()
    with ProcessPoolExecutor(chosen.jobs) as pool:
        todo = tasks(chosen.seed, chosen.count, chosen.reports)
        for task, became, failed in pool.map(run_task, todo):
            outcomes += became
            if failed:
                pool.shutdown(cancel_futures=True)
                return said(task, failed)
    spent = time.monotonic() - started
    print(f"{chosen.count} records of seed {chosen.seed} in {spent:.0f} s: nothing undocumented")
    for outcome, count in outcomes.most_common():
        print(f"  {count:>9} {outcome}")
    return 0


def said(task: Task, failed: str) -> int:
    """Print what failed and the first record that does so by itself; return the exit code."""
    what, seed, start, stop = task
    act = {"report": report, "tables": tabulate, "load": lambda f: read(f, 0)}[what]

    warnings.simplefilter("error")
    found = first_failing(seed, start, min(stop, start + TABLE_LINES) if what != "load" else stop,
                          act)  # fmt: skip
    print(failed)
    which = f"records {start} to {stop - 1} together" if found is None else f"record {found}"
    print(f"{what} failed: seed {seed}, {which}")
    if found is not None:
        print(f"again: python tests/programs/fuzz_records.py --seed {seed} --only {found}")
    return 1


def alone(seed: int, index: int) -> int:
    """Print one record and take it all the way; return the exit code."""
    made = line(seed, index)
    print(made.decode("utf-8", "backslashreplace")[:3000])
    warnings.simplefilter("error")
    for act in (lambda f: read(f, 0), tabulate, report):
        with tempfile.TemporaryDirectory() as place:
            folder = written(Path(place), [made])
            try:
                print(attempt(lambda folder=folder, act=act: act(folder)))  # type: ignore[misc]
            except Exception:
                traceback.print_exc()
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
