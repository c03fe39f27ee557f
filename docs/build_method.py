"""Put what `make verify-method` measured into docs/method.md.

python docs/build_method.py
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "programs"))

from verification import PROMISES, Measured  # noqa: E402
from verification.show import KEPT, promised, shown  # noqa: E402

METHOD = ROOT / "docs" / "method.md"
VERIFIED = ROOT / "results" / "reference" / "method" / "verified.json"
MODULES = ROOT / "tests" / "programs" / "verification"
NONE = "–"
NOT_MEASURED = "Not measured yet."

Row = Mapping[str, Any]


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between the marks of `name`."""
    begin, end = f"<!-- method: {name} -->", f"<!-- /method: {name} -->"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    assert pattern.search(text), f"no marks for {name}"
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", text)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int) -> str:
    """Write a table as Markdown; columns from the `text_columns`-th on hold numbers."""
    kinds = [":--" if i < text_columns else "--:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, kinds, *rows))


def promise(name: str) -> str:
    """Return what a module promises."""
    text = ast.get_docstring(ast.parse((MODULES / f"{name}.py").read_text())) or ""
    return f"`{name}`: {' '.join(text.split(chr(10) * 2)[0].split())}"


def rates(content: Mapping[str, Any], measured: Mapping[str, Measured]) -> str:
    """Write what each module promises and what came of it, and what it was measured on."""
    machine, environment = content["machine"], content["environment"]
    where = (
        f"{machine['cpu']}, {machine['cores']} cores, torch {environment['torch']}, Python "
        f"{environment['python']}; {content['measured'][:10]}, {content['scale']} form:"
    )
    rows = []
    for name in PROMISES:
        got = measured.get(name)
        if got is None:
            rows.append([promise(name), NONE, *[NONE] * 5, "not measured yet"])
            continue
        rows.append(
            [
                promise(name), got.figure or NONE, f"{got.tried:,}", f"{got.failed:,}",
                shown(got.rate, got.unit), shown(got.bound, got.unit), promised(got),
                KEPT[got.passed] + (f": {got.reason}" if got.passed is None else ""),
            ]
        )  # fmt: skip
    head = ("promise", "figure", "tried", "failed", "measured", "bound", "promised", "kept")
    return f"{where}\n\n{markdown(head, rows, 2)}"


def percent(share: float) -> str:
    """Write a share in whole percent."""
    return f"{100 * share:.0f} %"


def exponents(rows: Sequence[Row]) -> str:
    """Write the coverage of every noise and number of launches, without the sentinel and with."""
    head = (
        "launches", "noise between launches", "covered", "median half-width",
        "with the sentinel", "median half-width", "covered from samples",
    )  # fmt: skip
    without = [r for r in rows if not r["sentinel"]]
    with_it = [r for r in rows if r["sentinel"]]
    return markdown(
        head,
        [
            [
                str(r["launches"]), percent(r["noise"]), shown(r["coverage"], "1"),
                f"{r['half_width']:.3f}", shown(s["coverage"], "1"), f"{s['half_width']:.3f}",
                shown(r["coverage_from_samples"], "1"),
            ]
            for r, s in zip(without, with_it, strict=True)
        ],
        0,
    )  # fmt: skip


def intervals(rows: Sequence[Row]) -> str:
    """Write the least coverage of times, ratios and crossovers by launches and tails."""
    counts = sorted({r["launches"] for r in rows})
    written = []
    for of in dict.fromkeys(r["of"] for r in rows):
        for tails in dict.fromkeys(r["tails"] for r in rows):
            some = [r for r in rows if (r["of"], r["tails"]) == (of, tails)]
            least = [min(r["coverage"] for r in some if r["launches"] == n) for n in counts]
            written.append([of, tails, *(shown(value, "1") for value in least)])
    head = ["of a", "launches scatter", *(f"covered by {n} launches" for n in counts)]
    return markdown(head, written, 2)


def split_halves(rows: Sequence[Row]) -> str:
    """Write how often two halves of a shipped run agree."""
    kinds = list(dict.fromkeys(r["of"] for r in rows))
    written = []
    for run in dict.fromkeys(r["run"] for r in rows):
        some = {r["of"]: r for r in rows if r["run"] == run}
        first = next(iter(some.values()))
        agreed = [shown(some[of]["share"], "1") if of in some else NONE for of in kinds]
        tries = sum(r["tries"] for r in some.values())
        written.append([f"`{run}`", str(first["launches"]), f"{tries:,}", *agreed])
    return markdown(("run", "launches", "tries", *(f"{of}s agree" for of in kinds)), written, 1)


def ground_truth(rows: Sequence[Row]) -> str:
    """Write how far the medians were off, by path."""
    written = []
    for path in dict.fromkeys(r["path"] for r in rows):
        some = [r for r in rows if r["path"] == path]
        nominal = sorted({r["nominal"] for r in some})
        off = max((r["off"] for r in some), key=abs)
        empty = max(r["call"] for r in some)
        written.append(
            [
                path, f"{shown(nominal[0], 's')} to {shown(nominal[-1], 's')}", shown(empty, "s"),
                str(len(some)), f"{off:+.2%}".replace("%", " %"),
            ]
        )  # fmt: skip
    return markdown(("by", "work", "an empty call", "tried", "furthest off"), written, 1)


def memory(rows: Sequence[Row]) -> str:
    """Write how far the peaks were off, by path."""
    mib, written = 2**20, []
    for path in dict.fromkeys(r["path"] for r in rows):
        own = [r for r in rows if r["path"] == path]
        sizes = [r["expected"] / mib for r in own]
        ends = [(r[end] - r["expected"], r["expected"]) for r in own for end in _ENDS]
        off, expected = max(ends, key=lambda pair: abs(pair[0]))
        written.append(
            [
                path, f"{min(sizes):.0f} to {max(sizes):,.0f}", str(sum(r["tried"] for r in own)),
                f"{off / mib:+.2f}", f"{expected / mib:,.0f}",
            ]
        )  # fmt: skip
    head = ("by", "MiB allocated", "tried", "furthest off, MiB", "of, MiB")
    return markdown(head, written, 1)


def harness_cost(rows: Sequence[Row]) -> str:
    """Write what a sample costs, over the processes."""
    written = []
    for key, words in (
        ("added", "the clock's readings, in a sample"),
        ("in_all", "a sample in all"),
    ):
        values = sorted(r[key] for r in rows)
        middle = shown(values[len(values) // 2], "s")
        written.append([words, str(len(values)), middle, shown(values[-1], "s")])
    return markdown(("cost of", "processes", "median", "largest"), written, 1)


_ENDS = ("lowest", "highest")


def operations(rows: Sequence[Row]) -> str:
    """Write how many counts were held against the declarations, by what counted."""
    written = []
    for kind in dict.fromkeys(r["counted"] for r in rows):
        some = [r for r in rows if r["counted"] == kind]
        written.append(
            [
                kind, str(len(some)), str(sum(r["tried"] for r in some)),
                str(sum(r["failed"] for r in some)), shown(max(r["worst"] for r in some), "1"),
            ]
        )  # fmt: skip
    head = ("counted", "backends and options", "counts", "off", "furthest")
    return markdown(head, written, 1)


def alarms(rows: Sequence[Row]) -> str:
    """Write the verdicts over all pairs of runs."""
    verdicts = ("slower", "faster", "no_change", "inconclusive")
    widths = [r["median_half_width"] for r in rows]
    written = [
        str(len(rows)), str(sum(r["cases"] for r in rows)),
        *(str(sum(r[v] for r in rows)) for v in verdicts),
        f"{shown(min(widths), '1')} to {shown(max(widths), '1')}",
    ]  # fmt: skip
    head = ("pairs", "cases", "slower", "faster", "no change", "inconclusive",
            "median half-widths of the pairs")  # fmt: skip
    return markdown(head, [written], 0)


def power(rows: Sequence[Row]) -> str:
    """Write how often a slowdown was found."""
    written = [
        [
            shown(r["slowdown"], "1"), str(r["tries"]), str(r["found"]), shown(r["share"], "1"),
            shown(r["bound"], "1"), f"{r['mean_pairs']:.1f}", f"{r['mean_ratio']:.3f} ×",
            str(r["false"]),
        ]
        for r in rows
    ]  # fmt: skip
    head = (
        "slowdown", "tries", "found", "share", "bound", "pairs, on average", "measured",
        "unchanged cases called slower",
    )  # fmt: skip
    return markdown(head, written, 1)


DETAILS: Mapping[str, Callable[[Sequence[Row]], str]] = {
    "exponents": exponents,
    "intervals": intervals,
    "split_halves": split_halves,
    "ground_truth": ground_truth,
    "harness_cost": harness_cost,
    "memory": memory,
    "operations": operations,
    "alarms": alarms,
    "power": power,
}
"""What writes the details of a promise, at its marks; marks whose promise is not in the file say
that it is not measured yet."""


def method() -> str:
    """Return docs/method.md with what was measured."""
    content = json.loads(VERIFIED.read_text())
    measured = {one["name"]: Measured(**one) for one in content["promises"]}
    text = fill(METHOD.read_text(), "rates", rates(content, measured))
    for mark in re.findall(r"<!-- method: (\S+) -->", text):
        if mark == "rates":
            continue
        got = measured.get(mark.replace("-", "_"))
        if got is None or not got.details:
            text = fill(text, mark, NOT_MEASURED)
        else:
            text = fill(text, mark, DETAILS[got.name](got.details))
    return text


if __name__ == "__main__":
    METHOD.write_text(method())
