"""A recommendation as people read it: both answers, what they cost, and how to use them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results.analysis.warm_up import NOTE
from results.recommendation.commands import measure_command, other_settings, quality_command
from results.recommendation.quality import BETTER, USES, WINDOW_SWAP
from results.recommendation.question import LIMITS, QUANTITIES, Question, write_limit
from results.recommendation.ranking import Candidate, Ranking, Recommendation
from results.recommendation.ranking_text import (
    NOT_FASTER,
    basis_text,
    is_faster,
    latency_text,
    memory_text,
    others_table,
    prose,
    speedup_text,
    why,
)
from results.recommendation.relaxations import would_give
from results.text import numbers
from results.text.clean import clean
from results.text.method_types import CHANGES, method_type
from results.text.method_types import WORDS as TYPE_WORDS
from results.text.modes import WORDS
from results.text.settings import in_short, names_precision

Machines = Mapping[str, Mapping[str, Any]]
"""Content id to what the machine is: `Run.machines`."""

MOST_HELD = 12
"""So many lines of it are shown."""

_SHORT = 70
"""Letters of a reason that is said in full."""

_REASONS = {**QUANTITIES, "latency": "length"}

_MODES = {"forward": "forward pass", "training": "training step", "decode": "one more token"}


def text(
    found: Recommendation,
    *,
    machines: Machines,
    reference: bool,
    incomplete: Sequence[str] = (),
    plugins: Sequence[Path] = (),
    folders: Sequence[Path] = (),
    is_measured: bool = False,
    days: str = "",
    prompt: Recommendation | None = None,
) -> str:
    """Return the answer as lines for a terminal.

    Args:
        found: by `recommendation.recommend`.
        machines: `Run.machines`.
        reference: whether the times are of the results that ship with attnbench.
        incomplete: `Run.incomplete`: what the results lack.
        plugins: files that the suggested commands name.
        folders: of runs that were named: the suggested commands read them, too.
        is_measured: whether it was measured for this question: nothing is suggested then.
        days: when the results were measured.
        prompt: beside an answer for decoding, that for the prompt before it.
    """
    of = found.ranking.setting if found.ranking else None
    suggested = "" if is_measured else measure_command(found.question, plugins, folders, of)
    lines = [line for said in incomplete for line in (clean(said), "")]
    if not found.rankings:
        return "\n".join([*lines, *_nothing(found, machines, reference, suggested)]) + "\n"
    shown = _one_a_machine(found.rankings)
    precise = names_precision(r.setting for r in found.rankings)
    for ranking in shown:
        told = _source(ranking, machines, reference, folders, days)
        lines += [*_ranking(ranking, told, reference, precise, plugins), ""]
    if suggested and (reference or any(map(_is_guessed, shown))):
        lines += ["Measure it on this machine, and answer again:", f"  {suggested}", ""]
    if reference:
        lines += ["Answer from runs of your own: the same command, and their folders.", ""]
    lines += prose(told) if (told := other_settings(found.rankings, shown)) else []
    lines += _next_question(found.question) if prompt is None else _prompt(prompt, plugins)
    return "\n".join(lines).rstrip() + "\n"


def _one_a_machine(rankings: Sequence[Ranking]) -> list[Ranking]:
    """Return the best-covered ranking of each machine, in their order."""
    best: dict[Any, Ranking] = {}
    for ranking in rankings:
        best.setdefault(ranking.setting["machine"], ranking)
    return list(best.values())


def _asked(asked: Question) -> str:
    causal = "causal" if asked.is_causal else "bidirectional"
    place = WORDS[asked.mode].place.lower()
    parts = [f"{place} {asked.seq_len:,} tokens", _MODES[asked.mode], causal, asked.device]
    parts += [USES[asked.use]] if asked.use else []
    for name in LIMITS:
        if (limit := asked.limit(name)) is not None:
            bound = "at least" if name == "min_recall" else "at most"
            parts.append(f"{QUANTITIES[name]} {bound} {write_limit(name, limit)}")
    return ", ".join(parts)


def machine_words(about: Mapping[str, Any] | None, address: str) -> str:
    """Return a machine in a few words; its id where nothing is known."""
    about = about or {}
    parts = [clean(about.get("gpu") or about.get("cpu") or "")[:60]]
    cores = about.get("cores")
    if isinstance(cores, int) and not about.get("gpu"):
        parts.append(f"{cores} core{'s' if cores != 1 else ''}")
    return ", ".join(p for p in parts if p) or f"machine {clean(address)[:16]}"


# -- one ranking ---------------------------------------------------------------------------------


def _source(
    ranking: Ranking, machines: Machines, reference: bool, folders: Sequence[Path], days: str
) -> str:
    """Say where the numbers are from: folders, machine and day."""
    address = str(ranking.setting["machine"])
    place = machine_words(machines.get(address), address)
    when = [days] if days else []
    if reference:
        shipped = " (shipped with attnbench, not your machine: times hold there)"
        return ", ".join([f"{place}{shipped}", *when])
    named = [numbers.few([clean(str(folder)) for folder in folders])] if folders else []
    return ", ".join([*named, place, *when])


def _ranking(
    ranking: Ranking, source: str, reference: bool, precise: bool, plugins: Sequence[Path]
) -> list[str]:
    lines = [
        *prose(f"Question: {_asked(ranking.question)}."),
        *prose(f"Results: {source}; {_setting(ranking, reference, precise)}."),
        "",
        *_exact(ranking),
        "",
        *_other(ranking, plugins),
    ]
    if any(c.is_cut_short for c in ranking.candidates if c.latency.known):
        lines += ["", *prose(NOTE)]
    if table := others_table(ranking):
        lines += ["", "Also measured:", *table]
    if silent := [f"{clean(c.label)} ({_in_short(c)})" for c in ranking.candidates
                  if not c.latency.known]:  # fmt: skip
        lines += [*([] if table else [""]), *prose(f"No time here: {', '.join(silent)}.", "  ")]
    if not ranking.answers:
        lines += ["", *would_give(ranking)]
    for answer in [a for a in ranking.answers if a.is_exact or not _is_in_vain(a, ranking)][-1:]:
        code = ranking.python(answer).splitlines()
        lines += [
            "",
            f"{clean(answer.label)} in Python:",
            "",
            *(f"    {c}".rstrip() for c in code),
        ]
    return lines


def _next_question(asked: Question) -> list[str]:
    """Say what else is to be asked for a model that generates."""
    if asked.is_causal and asked.mode == "forward":
        return [*prose("A model that generates does so token by token: ask for that with --use "
                       "decode.")]  # fmt: skip
    return []


def _prompt(found: Recommendation, plugins: Sequence[Path]) -> list[str]:
    """Return both answers for the prompt that a model reads before it generates, in short."""
    head = f"The prompt before it, {_asked(found.question)}:"
    if (ranking := found.ranking) is None:
        return [
            *prose(f"{head} not measured here. To measure it, and answer:"),
            f"  {measure_command(found.question, plugins)}",
        ]
    lines = prose(head)
    for kind, answer in (("exact", ranking.exact), ("not exact", ranking.other)):
        if answer is None:
            lines += prose(f"{kind}: {_none(ranking, exact=kind == 'exact')}.", "  ")
            continue
        faster = "" if answer is ranking.baseline else f", {speedup_text(answer, ranking)}"
        lines += prose(
            f"{kind}: {clean(answer.label)}, {latency_text(answer)}{faster}; "
            f"{basis_text(answer.latency)}.", "  ",
        )  # fmt: skip
    return lines


def _setting(ranking: Ranking, reference: bool, precise: bool) -> str:
    """Say what was measured; of the results that ship not which commits, which --json has."""
    values = {**ranking.setting, **({"version": ""} if reference else {})}
    return in_short(values, with_precision=precise)


def _in_short(one: Candidate) -> str:
    """Say in a few words why a candidate has no time at the length."""
    said = why(one)
    return said if len(said) <= _SHORT else said.partition(":")[0]


def _is_guessed(ranking: Ranking) -> bool:
    """Whether an answer, or the exact baseline, was not measured at the length."""
    shown = (*ranking.answers, *([ranking.baseline] if ranking.baseline else []))
    return ranking.baseline is None or any(c.latency.basis == "predicted" for c in shown)


def _exact(ranking: Ranking) -> list[str]:
    head = "Answer, exact: "
    if (answer := ranking.exact) is None:
        return prose(f"{head}{_none(ranking, exact=True)}.")
    return [
        *prose(f"{head}{clean(answer.label)}, {latency_text(answer)}, {_memory(answer, ranking)}"
               f"{_tied(ranking, answer)}."),
        *prose(f"{_exact_words(answer)}; fits any model; {basis_text(answer.latency)}", "  ", 0),
    ]  # fmt: skip


def _exact_words(answer: Candidate) -> str:
    """Say what an exact method computes, or that one which is not exact is so at this length."""
    is_always = method_type(answer.backend, answer.options, is_exact=True) == "exact"
    words = TYPE_WORDS["exact"]
    return words if is_always else f"{words} at this length, which its pattern covers whole"


def _other(ranking: Ranking, plugins: Sequence[Path]) -> list[str]:
    head = "Answer, not exact: "
    if (answer := ranking.other) is None:
        lines = prose(f"{head}{_none(ranking, exact=False)}.")
        if (one := ranking.untested) is not None:
            lines += prose(
                f"fastest of those whose quality is not measured: {clean(one.label)}, "
                f"{latency_text(one)}, {speedup_text(one, ranking)}. To measure it, then name "
                "both folders:", "  ", 0,
            )  # fmt: skip
            lines += [f"  {quality_command(ranking, [one], plugins)}"]
        return lines
    caveat = WINDOW_SWAP if ranking.question.use == "swap" else CHANGES
    return [
        *prose(f"{head}{clean(answer.label)}, {latency_text(answer)}, "
               f"{speedup_text(answer, ranking)}, {_memory(answer, ranking)}"
               f"{_tied(ranking, answer)}."),
        *(prose(NOT_FASTER, "  ", 0) if _is_in_vain(answer, ranking) else []),
        *prose(f"{answer.type}: {caveat}; {basis_text(answer.latency)}", "  ", 0),
        *(f"  quality: {line}" if i == 0 else f"           {line}"
          for i, line in enumerate(answer.quality.lines)),
        f"           {BETTER}",
    ]  # fmt: skip


def _is_in_vain(answer: Candidate, ranking: Ranking) -> bool:
    """Whether there is an exact answer that this one is not shown to be faster than."""
    return ranking.exact is not None and not is_faster(answer)


def _memory(answer: Candidate, ranking: Ranking) -> str:
    words = WORDS[ranking.question.mode].memory_sentence
    return f"{memory_text(answer.memory)} {words}"


def _tied(ranking: Ranking, answer: Candidate) -> str:
    tied = [clean(c.label) for c in ranking.tied(answer)]
    return f" (statistically tied: {numbers.listing(tied)})" if tied else ""


def _none(ranking: Ranking, *, exact: bool) -> str:
    """Say in short that there is no answer of a kind, and why."""
    of_kind = [c for c in ranking.candidates if c.is_exact == exact]
    if not of_kind:
        return "none was measured"
    reasons = dict.fromkeys(_REASONS.get(r, r) for c in of_kind for r in c.reasons)
    return f"none qualifies by {numbers.listing(list(reasons))}"


def _nothing(
    found: Recommendation, machines: Machines, reference: bool, suggested: str
) -> list[str]:
    chosen = "".join(f", {k} {v}" for k, v in found.question.setting.items())
    lines = [
        *prose(f"Question: {_asked(found.question)}{chosen}."),
        "Answer: nothing of this was measured, so nothing is recommended.",
    ]  # fmt: skip
    if suggested:
        lines += ["", "Measure it on this machine, and answer:", f"  {suggested}"]
    if not found.held:
        return [*lines, "", "The results hold no speed of attention."]
    places = [machine_words(machines[address], address) for address in list(machines)[:1]]
    of = f" ({', '.join([*places, *(['shipped'] if reference else [])])})" if places else ""
    lines += ["", f"The results{of} hold speed of these calls of attention:"]
    lines += [f"  {line}" for line in found.held[:MOST_HELD]]
    if len(found.held) > MOST_HELD:
        lines += [f"  … and {len(found.held) - MOST_HELD} more"]
    return lines
