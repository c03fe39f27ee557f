"""A recommendation as people read it: the winner, why, what is not known, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from results.recommendation.commands import error_command, recall_command, speed_command
from results.recommendation.question import LIMITS, QUANTITIES, Question, write_limit
from results.recommendation.ranking import Ranking, Recommendation
from results.recommendation.ranking_text import latency_text, legend, prose, ranking_table
from results.recommendation.relaxations import Relaxation, as_option, option, relaxations
from results.records.case_columns import SETTING
from results.text import numbers
from results.text.clean import clean
from results.text.modes import WORDS
from results.text.settings import differing, in_words, names_precision

Machines = Mapping[str, Mapping[str, Any]]
"""Content id to what the machine is: `Run.machines`."""

MOST_HELD, MOST_GIVEN, MOST_OTHERS = 12, 3, 8
"""So many lines of one kind are shown."""

_PLACE = ("machine", "environment", "version")

_NO_OPTION = (*_PLACE, "num_kv_heads")
"""What of a setting the command cannot choose."""


def text(
    found: Recommendation,
    *,
    machines: Machines,
    reference: bool,
    incomplete: Sequence[str] = (),
) -> str:
    """Return the answer as lines for a terminal.

    Args:
        found: by `recommendation.recommend`.
        machines: `Run.machines`.
        reference: whether the records are those that ship with attnbench.
        incomplete: `Run.incomplete`: what the records lack.
    """
    lines = [line for said in incomplete for line in (clean(said), "")]
    if not found.rankings:
        return "\n".join([*lines, *_nothing(found, machines, reference)]) + "\n"
    precise = names_precision(r.setting for r in found.rankings)
    shown = _one_a_machine(found.rankings)
    for ranking in shown:
        lines += [*_ranking(ranking, machines, reference, precise), ""]
    lines += _others(found.rankings, shown)
    return "\n".join(lines).rstrip() + "\n"


def _one_a_machine(rankings: Sequence[Ranking]) -> list[Ranking]:
    """Return the best-covered ranking of each machine, in their order."""
    best: dict[Any, Ranking] = {}
    for ranking in rankings:
        best.setdefault(ranking.setting["machine"], ranking)
    return list(best.values())


def _asked(asked: Question) -> str:
    what = {
        "forward": "forward pass", "training": "training step (forward and backward)",
        "decode": "one token more, with a state",
    }[asked.mode]  # fmt: skip
    causal = "causal" if asked.is_causal else "not causal"
    place = WORDS[asked.mode].place.lower()
    parts = [f"{place} {asked.seq_len:,} tokens", what, asked.device, causal]
    for name in LIMITS:
        if (limit := asked.limit(name)) is not None:
            bound = "at least" if name == "min_recall" else "at most"
            parts.append(f"{QUANTITIES[name]} {bound} {write_limit(name, limit)}")
    return ", ".join(parts)


def machine_words(about: Mapping[str, Any] | None, address: str) -> str:
    """Return a machine in a few words; its id where nothing is known."""
    about = about or {}
    parts = [clean(about.get("cpu") or "")[:60]]
    cores = about.get("cores")
    if isinstance(cores, int):
        parts.append(f"{cores} core{'s' if cores != 1 else ''}")
    ram = about.get("ram_bytes")
    if isinstance(ram, int | float) and 0 < ram < 1e30:
        parts.append(f"{numbers.size(float(ram))} of memory")
    parts += [clean(about.get(k) or "")[:60] for k in ("gpu", "os")]
    return ", ".join(p for p in parts if p) or f"machine {clean(address)[:16]}"


def _source(address: str, machines: Machines, reference: bool) -> list[str]:
    sentence = f"Measured on: {machine_words(machines.get(address), address)}."
    if reference:
        sentence += (
            " These are the reference records that ship with attnbench, of that machine and not "
            "of yours: on yours the order may be another. Measure it with attnbench run --out "
            "DIR, and give DIR to this command."
        )
    return prose(sentence)


# -- one ranking ---------------------------------------------------------------------------------


def _ranking(ranking: Ranking, machines: Machines, reference: bool, precise: bool) -> list[str]:
    setting, first = ranking.setting, ranking.winner
    lines = [
        *prose(f"Question: {_asked(ranking.question)}."),
        *prose(f"Answer: {_verdict(ranking)}"),
        "",
        *_source(str(setting["machine"]), machines, reference),
        *prose(f"Setting: {in_words(setting, with_precision=precise)}."),
    ]
    if ranking.qualified:
        lines += ["", *ranking_table(ranking), "", *legend(ranking)]
    if ranking.rejected:
        lines += ["", "Did not qualify:"]
        for one in ranking.rejected:
            lines += prose(f"{clean(one.label)}: {_why(one.reasons)}", "  ")
    lines += _unmeasured(ranking)
    if first is None:
        return [*lines, "", *_would_give(ranking)]
    lines += ["", f"{clean(first.label)} in Python:", ""]
    return [*lines, *(f"    {line}".rstrip() for line in ranking.python.splitlines())]


def _verdict(ranking: Ranking) -> str:
    first = ranking.winner
    if first is None:
        return "no backend qualifies."
    answer = f"{clean(first.label)}, {latency_text(first)}"
    if first.latency.between:
        answer += ", interpolated"
    if tied := [clean(c.label) for c in ranking.not_told_apart]:
        answer += f". Not told apart from it: {numbers.listing(tied)}"
    if short := [clean(c.label) for c in ranking.qualified if c.is_cut_short]:
        times = "time may be too long" if len(short) == 1 else "times may be too long"
        answer += (
            f". The warm-up of {numbers.listing(short)} was cut short: the {times}, and the order "
            "another"
        )
    return f"{answer}."


def _why(reasons: Mapping[str, str]) -> str:
    """Say why a candidate fell out; of what was not measured at the length nothing more."""
    return clean(reasons["latency"] if "latency" in reasons else "; ".join(reasons.values()))


def _unmeasured(ranking: Ranking) -> list[str]:
    """Say what of no candidate is known at this length, and how to measure it."""
    asked = ranking.question
    missing = [n for n in ranking.never_measured if n != "latency"]
    if not missing or "latency" in ranking.never_measured:  # `_would_give` says it
        return []
    how = {
        "memory": speed_command(asked),
        "error": error_command(ranking),
        "recall": recall_command(ranking),
    }
    lines = ["", "Not known of any of these, and how to measure it:"]
    return [*lines, *(f"  {name}: {how[name]}" for name in missing)]


# -- where none qualifies ------------------------------------------------------------------------


def _would_give(ranking: Ranking) -> list[str]:
    ways = relaxations(ranking)
    if not ways:
        lengths = ranking.lengths
        if not lengths:
            return ["Nothing was measured in this setting."]
        return [
            *prose(
                f"What would have to give: the length. In this setting {lengths[0]:,} to "
                f"{lengths[-1]:,} tokens were measured; what lies outside is not guessed. "
                "To measure it:"
            ),
            f"  {speed_command(ranking.question)}",
        ]
    lines = ["What would have to give:"]
    for one in ways[:MOST_GIVEN]:
        lines += [f"  {clean(one.candidate.label)} qualifies {_steps(one)}"]
    if len(ways) > MOST_GIVEN:
        lines += [f"  … and {len(ways) - MOST_GIVEN} more in --json"]
    return lines


def _steps(one: Relaxation) -> str:
    """Say what would do: the options to change, then those to leave out."""
    changed = [as_option(name, value) for name, value in one.limits.items() if value is not None]
    dropped = [option(name) for name, value in one.limits.items() if value is None]
    dropped += [f"{option(name)} (never measured)" for name in one.unmeasured]
    steps = [f"with {' '.join(changed)}"] if changed else []
    steps += [f"without {' and '.join(dropped)}"] if dropped else []
    return " and ".join(steps)


def _nothing(found: Recommendation, machines: Machines, reference: bool) -> list[str]:
    chosen = "".join(f", {k} {v}" for k, v in found.question.setting.items())
    lines = [
        *prose(f"Question: {_asked(found.question)}{chosen}."),
        "Answer: nothing of this was measured, so nothing is recommended.",
    ]
    for address in list(machines)[:MOST_OTHERS]:
        lines += ["", *_source(address, machines, reference)]
    if not found.held:
        return [*lines, "", "The records hold no attention of kind speed."]
    lines += ["", "What the records hold of kind speed, level attention:"]
    lines += [f"  {line}" for line in found.held[:MOST_HELD]]
    if len(found.held) > MOST_HELD:
        lines += [f"  … and {len(found.held) - MOST_HELD} more"]
    return lines


def _others(rankings: Sequence[Ranking], shown: Sequence[Ranking]) -> list[str]:
    """Name the settings that have a ranking of their own, and how to see it."""
    rest = [r for r in rankings if not any(r is one for one in shown)]
    here = [r for r in rest if any(c.latency.known for c in r.candidates)]
    if not rest:
        return []
    first = {r.setting["machine"]: r.setting for r in shown}
    lines = ["Other settings in these records, each a ranking of its own:"] if here else []
    for one in here[:MOST_OTHERS]:
        base = first[one.setting["machine"]]
        columns = [c for c in SETTING if one.setting[c] != base[c]]
        options = " ".join(_choice(c, one.setting[c]) for c in columns if c not in _NO_OPTION)
        known = sum(c.latency.known for c in one.candidates)
        best = f", {clean(one.winner.label)} first" if one.winner else ", none qualifies"
        lines += [
            f"  {differing(one.setting, columns)}: {known} backend{'s'[: known != 1]}{best}"
            + (f" ({options})" if options else "")
        ]
    if len(here) > MOST_OTHERS:
        lines += [f"  … and {len(here) - MOST_OTHERS} more in --json"]
    if further := len(rest) - len(here):
        also = "further " if here else "other "
        lines += [
            f"{further} {also}setting{'s'[: further != 1]} in these records: nothing measured at "
            "this length."
        ]
    return lines


def _choice(column: str, value: Any) -> str:
    shown = ("on" if value else "off") if column == "compile" else value
    return f"--{column.replace('_', '-')} {shown}"
