"""A recommendation as programs read it: one JSON object with stable keys."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from results.recommendation.interpolation import Reading
from results.recommendation.ranking import Candidate, Ranking, Recommendation
from results.recommendation.relaxations import relaxations
from results.recommendation.text import Machines, machine_words
from results.schema import UNITS
from results.text.modes import WORDS


def as_json(
    found: Recommendation,
    *,
    machines: Machines,
    reference: bool,
    folders: tuple[Path, ...],
    incomplete: Sequence[str] = (),
) -> str:
    """Return the answer as JSON text; numbers that are not known are null.

    - ``question``: `seq_len`, `mode`, `device`, `is_causal`, `max_error`, `min_recall`,
      `max_memory` (B), `error_inputs`, `recall_task`, and `setting`: what was chosen of it.
    - ``reference``: whether the records are those that ship with attnbench; ``folders``: theirs.
    - ``incomplete``: a sentence for each run of which launches are missing.
    - ``winner``: null, or `backend` and `options` (the text of the command line) of the first in
      the first ranking; ``python``: lines that use it, null without one.
    - ``rankings``: one a setting, the best covered first; each with `setting` (all columns),
      `machine` (in words), `winner`, `python`, `never_measured` (names of what no candidate has a
      value of), `would_qualify`, `lengths` (tokens; where a time was measured), `candidates`.
    - a candidate: `backend`, `options`, `qualifies`, `rank` (from 1; null if it does not),
      `told_apart` (from the first; null if it does not qualify), `times` (latency / the first's:
      `value`, `low`, `high`), `reasons` (``latency`` or a limit's name, to a sentence), and the
      readings `latency` (s), `memory` (B), `error` (relative L2), `recall` (accuracy), and
      `errors`: readings of the error on further inputs, by their name.
    - a reading: `value`, `low`, `high`, `unit`, `metric`, `interpolated_between` (two lengths, or
      null: measured), `launches` (how many launches or seeds are behind a measured value),
      `converged` (of a time: whether the warm-ups behind it did; null = not known), `on` (inputs
      or task), `note`.
    - `would_qualify`: of candidates with a latency that met some limit not: `backend`, `options`,
      `limits` (name to the nearest one it meets; null = only without), `never_measured` (limits
      on what was never measured of it).
    - ``held``: where there is no ranking, what the records hold, in words.

    Args:
        found: by `recommendation.recommend`.
        machines: `Run.machines`.
        reference: whether the records are those that ship with attnbench.
        folders: where they came from.
        incomplete: `Run.incomplete`.
    """
    told = {
        "question": asdict(found.question),
        "reference": reference,
        "folders": [str(f) for f in folders],
        "incomplete": list(incomplete),
        "winner": _name(found.winner),
        "python": found.python or None,
        "rankings": [_ranking(r, machines) for r in found.rankings],
        "held": list(found.held),
    }
    return json.dumps(_plain(told), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _name(candidate: Candidate | None) -> dict[str, str] | None:
    if candidate is None:
        return None
    return {"backend": candidate.backend, "options": candidate.options}


def _ranking(ranking: Ranking, machines: Machines) -> dict[str, Any]:
    address = str(ranking.setting["machine"])
    memory = WORDS[ranking.question.mode].memory
    places = {id(c): place for place, c in enumerate(ranking.qualified, 1)}
    return {
        "setting": dict(ranking.setting),
        "machine": machine_words(machines.get(address), address),
        "winner": _name(ranking.winner),
        "python": ranking.python or None,
        "never_measured": list(ranking.never_measured),
        "would_qualify": [
            {**(_name(r.candidate) or {}), "limits": r.limits, "never_measured": r.unmeasured}
            for r in relaxations(ranking)
        ],
        "lengths": list(ranking.lengths),
        "candidates": [_candidate(c, places.get(id(c)), memory) for c in ranking.candidates],
    }


def _candidate(candidate: Candidate, place: int | None, memory: str) -> dict[str, Any]:
    return {
        "backend": candidate.backend,
        "options": candidate.options,
        "qualifies": candidate.qualifies,
        "rank": place,
        "told_apart": candidate.told_apart if place else None,
        "times": dict(zip(("value", "low", "high"), candidate.times[:3], strict=True)),
        "reasons": dict(candidate.reasons),
        "latency": _reading(candidate.latency, "latency"),
        "memory": _reading(candidate.memory, memory),
        "error": _reading(candidate.error, "relative_error"),
        "recall": _reading(candidate.recall, "accuracy"),
        "errors": {n: _reading(r, "relative_error") for n, r in candidate.errors.items()},
    }


def _reading(reading: Reading, metric: str) -> dict[str, Any]:
    return {
        "value": reading.value, "low": reading.low, "high": reading.high, "unit": UNITS[metric],
        "metric": metric, "interpolated_between": reading.between,
        "launches": len(reading.launches), "converged": reading.converged, "on": reading.on,
        "note": reading.note,
    }  # fmt: skip


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it: numpy's numbers as Python's, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    return bool(value) if type(value).__name__ in ("bool", "bool_") else str(value)
