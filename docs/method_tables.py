"""The tables of docs/method*.md: one function a promise of the method, from its measured rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verification.show import shown

NONE = "–"

Row = Mapping[str, Any]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int) -> str:
    """Write a table as Markdown; columns from the `text_columns`-th on hold numbers."""
    kinds = [":--" if i < text_columns else "--:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, kinds, *rows))


def number(value: float | None, places: int) -> str:
    """Write a number; what one repetition cannot tell is left out."""
    return NONE if value is None else f"{value:.{places}f}"


def percent(share: float) -> str:
    """Write a share in whole percent."""
    return f"{100 * share:.0f} %"


def plain(words: str) -> str:
    """Return words of records in those of the docs."""
    for old, new in (("sentinel", "control"), ("launches", "processes"), ("launch", "process")):
        words = words.replace(old, new)
    return words


def exponents(rows: Sequence[Row]) -> str:
    """Write the coverage of every noise and number of processes, without the control and with."""
    head = (
        "processes", "noise between them", "covered", "median half-width",
        "with the control", "median half-width", "covered from samples",
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
    """Write the least coverage of times, ratios and crossovers by processes and tails."""
    counts = sorted({r["launches"] for r in rows})
    written = []
    for of in dict.fromkeys(r["of"] for r in rows):
        for tails in dict.fromkeys(r["tails"] for r in rows):
            some = [r for r in rows if (r["of"], r["tails"]) == (of, tails)]
            least = [min(r["coverage"] for r in some if r["launches"] == n) for n in counts]
            written.append([of, tails, *(shown(value, "1") for value in least)])
    head = ["of a", "processes scatter", *(f"covered by {n}" for n in counts)]
    return markdown(head, written, 2)


def design(rows: Sequence[Row]) -> str:
    """Write what sweeps cover and how exact they are, by machine."""
    kinds = ("exponent", "ratio", "crossover")
    head = (
        "machine", "minutes", "processes",
        *(words for kind in kinds for words in (f"{kind}s covered", "half-width")),
        "called different",
    )  # fmt: skip
    written = []
    for r in rows:
        figures = [
            text
            for kind in kinds
            for text in (shown(r[f"{kind}_coverage"], "1"), f"{r[f'{kind}_half_width']:.3f}")
        ]  # fmt: skip
        words = r["words"] + (", the fastest two equal" if r["are_equal"] else "")
        written.append(
            [
                plain(words), f"{r['minutes']:.1f}", f"{r['launches']:.0f}", *figures,
                shown(r["told"], "1"),
            ]
        )  # fmt: skip
    return markdown(head, written, 1)


def sentinel(rows: Sequence[Row]) -> str:
    """Write how far the control benchmark's time is off behind every variant."""
    sizes = sorted({r["mebibytes"] for r in rows})
    written = []
    for arm in dict.fromkeys(r["arm"] for r in rows):
        some = {r["mebibytes"]: r for r in rows if r["arm"] == arm}
        off = ((100 * some[n]["off"], 100 * some[n]["half_width"]) for n in sizes)
        written.append([arm, *(f"{value:+.2f} ± {half:.2f} %" for value, half in off)])
    return markdown(("behind what does", *(f"{n:,} MiB" for n in sizes)), written, 1)


def repeated_runs(rows: Sequence[Row]) -> str:
    """Write how much differs in every pair of sweeps."""
    kinds = ("exponent", "ratio", "crossover")
    written = [
        [
            str(r["pair"]), f"{r['minutes']:.1f}",
            *(f"{r[f'{kind}_differ']} of {r[f'{kind}_tries']}" for kind in kinds),
        ]
        for r in rows
    ]  # fmt: skip
    return markdown(("pair", "minutes", *(f"{kind}s differ" for kind in kinds)), written, 0)


def time_to_answer(rows: Sequence[Row]) -> str:
    """Write what each tool takes, states and covers, and its minutes to the answer."""
    ours = rows[0]["minutes_to_answer"]
    head = (
        "tool", "repetitions", "minutes a run", "exponent ±, stated", "real", "covered",
        "ratio ±, stated", "real", "covered", "runs needed", "minutes to the answer",
        "times as long",
    )  # fmt: skip
    written = []
    for r in rows:
        figures = []
        for of in ("slope", "ratio"):
            figures += [number(r[f"{of}_stated"], 3), number(r[f"{of}_real"], 3)]
            figures.append(shown(r[f"{of}_coverage"], "1"))
        written.append(
            [
                r["tool"], str(r["repetitions"]), f"{r['minutes']:.1f}", *figures,
                number(r["runs_needed"], 1), number(r["minutes_to_answer"], 1),
                NONE if ours is None else f"{r['minutes_to_answer'] / ours:.1f}",
            ]
        )  # fmt: skip
    return markdown(head, written, 1)


def fewer_launches(rows: Sequence[Row]) -> str:
    """Write how exactly a change is known, by processes, noise and way to compare."""
    ways = list(dict.fromkeys(r["way"] for r in rows))
    written = []
    for noise, launches in dict.fromkeys((r["noise"], r["launches"]) for r in rows):
        some = {r["way"]: r for r in rows if (r["noise"], r["launches"]) == (noise, launches)}
        widths = [f"±{100 * some[way]['half_width']:.1f} %" for way in ways]
        written.append([percent(noise), str(launches), *widths])
    head = ("noise between processes", "processes", *map(plain, ways))
    return markdown(head, written, 0)


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
    return markdown(("run", "processes", "tries", *(f"{of}s agree" for of in kinds)), written, 1)


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
    "design": design,
    "split_halves": split_halves,
    "ground_truth": ground_truth,
    "harness_cost": harness_cost,
    "memory": memory,
    "sentinel": sentinel,
    "operations": operations,
    "repeated_runs": repeated_runs,
    "time_to_answer": time_to_answer,
    "alarms": alarms,
    "fewer_launches": fewer_launches,
    "power": power,
}
"""What writes the details of a promise, at its marks."""
