"""The commands that measure what a recommendation lacks, as they are run and printed."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from results.recommendation.quality import TRAINED
from results.recommendation.question import Question
from results.recommendation.ranking import Candidate, Ranking
from results.records.case_columns import SETTING
from results.schema import FULL_PRECISION, LSTM
from results.text.amounts import write_size
from results.text.clean import clean
from results.text.labels import BACKENDS

SHORTEST = 64
"""No length below is measured for a fit."""

PROCESSES = 5
"""Processes per case: enough for an interval, and an end to be waited for."""

MINE = Path("runs/mine")
"""Where what is printed puts what it measures."""

TRAINED_TOKENS = 1024
"""The longest that the inputs of a trained model are."""


_PLACE = ("machine", "environment", "version")

_NO_OPTION = ("num_kv_heads", "cross_len", "model", "checkpointing", "level", "packed", "padded")
"""What of a setting the command cannot choose."""

MOST_OTHERS = 4
"""So many other settings are named."""


def measure_command(
    asked: Question,
    plugins: Sequence[Path] = (),
    folders: Sequence[Path] = (),
    setting: Mapping[str, Any] | None = None,
) -> str:
    """Return the command that measures what was asked for, and answers.

    Args:
        asked: the question.
        plugins: files that it names.
        folders: of runs whose results it reads, too.
        setting: that was answered for: what of it no sweep has by itself is asked for, too.
    """
    words = ["attnbench", "recommend", "--seq-len", str(asked.seq_len)]
    usual = "decode" if asked.use == "decode" else "forward"
    words += ["--mode", asked.mode] if asked.mode != usual else []
    words += ["--use", asked.use] if asked.use else []
    words += _causal(asked) + _setting(asked) + _answered(asked, setting) + _plugins(plugins)
    for name in ("max_error", "min_recall", "max_memory", "error_inputs", "recall_task"):
        if (value := getattr(asked, name)) is not None:
            shown = write_size(value) if name == "max_memory" else _shown(value)
            words += [f"--{name.replace('_', '-')}", shown]
    return shlex.join([*words, "--measure", *map(str, folders)])


def speed_words(asked: Question, out: Path, plugins: Sequence[Path] = ()) -> list[str]:
    """Return the words of the sweep that times every backend at the length asked for.

    Two shorter lengths are timed with it: where the length itself takes too long, a fit to them
    says what it would take.
    """
    lengths = {
        asked.seq_len,
        *(asked.seq_len // k for k in (2, 4) if asked.seq_len // k >= SHORTEST),
    }
    return [
        "run", "--mode", asked.mode, "--seq-len", ",".join(map(str, sorted(lengths))),
        "--launches", str(PROCESSES), *_causal(asked), *_setting(asked), *_plugins(plugins),
        "--out", str(out),
    ]  # fmt: skip


def quality_words(
    asked: Question, candidates: Sequence[Candidate], out: Path, plugins: Sequence[Path] = ()
) -> list[str]:
    """Return the words of the sweep that measures how far from softmax some backends are.

    That is on the inputs of a trained model, which are of at most `TRAINED_TOKENS`.
    """
    backends = [word for c in candidates for word in ("--backend", clean(c.label))]
    device = ["--device", asked.device] if asked.device != "cpu" else []
    causal = ["--causal"] if asked.is_causal else []
    return [
        "run", "error", "--inputs", asked.error_inputs or TRAINED,
        "--seq-len", str(min(asked.seq_len, TRAINED_TOKENS)), *causal, *device, *backends,
        *_plugins(plugins), "--out", str(out),
    ]  # fmt: skip


def quality_command(
    ranking: Ranking, candidates: Sequence[Candidate], plugins: Sequence[Path] = ()
) -> str:
    """Return the same as it is printed; a plug-in whose file is not known is a placeholder."""
    named = any(c.backend not in (*BACKENDS, LSTM) for c in candidates)
    files = plugins or ((Path("FILE.py"),) if named else ())
    words = quality_words(ranking.question, candidates, MINE.with_name("quality"), files)
    return shlex.join(["attnbench", *words])


def plugins_of(commands: Iterable[Sequence[str]]) -> tuple[Path, ...]:
    """Return the files that the commands of runs named as plug-ins, each once."""
    named = (
        Path(value)
        for words in commands
        for option, value in itertools.pairwise(words)
        if option == "--plugin"
    )
    return tuple(dict.fromkeys(named))


def _causal(asked: Question) -> list[str]:
    return ["--causal"] if asked.is_causal and asked.mode != "decode" else []


def _setting(asked: Question) -> list[str]:
    """Return the options of what was chosen of a setting."""
    words = ["--device", asked.device] if asked.device != "cpu" else []
    for name, value in asked.setting.items():
        if name != "num_kv_heads":
            words += [f"--{name.replace('_', '-')}", _shown(value)]
    return words


_USUAL: Mapping[str, Any] = {
    "dtype": "float32", "batch": 1, "num_heads": 8, "head_dim": 64, "allocator": "default",
    "matmul_precision": FULL_PRECISION, "compile": False,
}  # fmt: skip
"""What a sweep has where no option says otherwise."""


def _answered(asked: Question, setting: Mapping[str, Any] | None) -> list[str]:
    """Return options for what a setting has that nobody asked for and no sweep has by itself."""
    words: list[str] = []
    for name, usual in _USUAL.items() if setting else ():
        if name not in asked.setting and setting is not None and setting[name] != usual:
            words += [f"--{name.replace('_', '-')}", _shown(setting[name])]
    return words


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _plugins(plugins: Sequence[Path]) -> list[str]:
    return [word for path in plugins for word in ("--plugin", str(path))]


def other_settings(rankings: Sequence[Ranking], shown: Sequence[Ranking]) -> str:
    """Name the settings that have answers of their own, and how to see them."""
    rest = [r for r in rankings if not any(r is one for one in shown)]
    here = [r for r in rest if r.answers]
    if not here:
        return ""
    first = {r.setting["machine"]: r.setting for r in shown}
    ways: list[str] = []
    for one in here:
        base = first[one.setting["machine"]]
        columns = [c for c in SETTING if one.setting[c] != base[c] and c not in _PLACE]
        if columns and not {*columns} & {*_NO_OPTION}:
            ways.append(" ".join(_choice(c, one.setting[c]) for c in columns))
    ways = list(dict.fromkeys(ways))
    if not ways:
        return ""
    more = f" and {len(ways) - MOST_OTHERS} more (--json)" if len(ways) > MOST_OTHERS else ""
    return f"Other settings in these results: {', '.join(ways[:MOST_OTHERS])}{more}."


def _choice(column: str, value: Any) -> str:
    shown = ("on" if value else "off") if column == "compile" else value
    return f"--{column.replace('_', '-')} {shown}"
