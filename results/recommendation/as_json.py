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
    prompt: Recommendation | None = None,
) -> str:
    """Return the answer as JSON text; numbers that are not known are null.

    - ``question``: `seq_len`, `mode`, `use`, `device`, `is_causal`, `max_error`, `min_recall`,
      `max_memory` (B), `error_inputs`, `recall_task`, and `setting`: what was chosen of it.
    - ``reference``: whether the times are of the results that ship with attnbench; ``folders``:
      theirs.
    - ``incomplete``: a sentence for each run of which processes are missing.
    - ``exact`` and ``other``: both answers of the first ranking: null, or `backend`, `options`
      (the text of the command line) and `python`, lines that use it.
    - ``rankings``: one a setting, the best covered first; each with `setting` (all columns),
      `machine` (in words), `exact`, `other`, `baseline` (that speed-ups are against; its name or
      null), `would_qualify`, `lengths` (tokens; where a time was measured), `candidates`.
    - a candidate: `backend`, `options`, `type` (``exact``, ``sparse``, ``approximate``, ``own``),
      `qualifies`, `uses` (names), `speedup` (`value`, `low`, `high`), `reasons` (``latency``, a
      limit's name, ``use`` or ``quality``, to a sentence), `quality`, and the readings `latency`
      (s) and `memory` (B).
    - a quality: `verdict` (``exact``, ``good``, ``poor``, ``unknown``), `text`, and `evidence`,
      the best first: `source` (``learnt``, ``trained inputs``, ``random inputs``), `metric`,
      `value`, `low`, `high`, `exact` (what sdpa reached), `chance`, `on` (task or inputs),
      `setting`, `lacking`, `counts` (whether it says something).
    - a reading: `value`, `low`, `high`, `unit`, `metric`, `basis` (``measured``,
      ``interpolated``, ``predicted``; null = not known), `lengths` (that it was interpolated or
      predicted from), `launches` (how many processes are behind a measured value), `converged` (of
      a time: whether the warm-ups behind it did; null = not known), `note`.
    - `would_qualify`: of candidates with a latency that met some limit not: `backend`, `options`,
      `limits` (name to the nearest one it meets; null = only without), `never_measured` (limits
      on what was never measured of it).
    - ``prompt``: beside an answer for decoding, `exact` and `other` for the prompt before it; else
      null.
    - ``held``: where there is no ranking, what the results hold, in words.

    Args:
        found: by `recommendation.recommend`.
        machines: `Run.machines`.
        reference: whether the times are of the results that ship with attnbench.
        folders: where they came from.
        incomplete: `Run.incomplete`.
        prompt: beside an answer for decoding, that for the prompt before it.
    """
    first = found.ranking
    told = {
        "question": asdict(found.question),
        "reference": reference,
        "folders": [str(f) for f in folders],
        "incomplete": list(incomplete),
        "exact": _answer(first, found.exact),
        "other": _answer(first, found.other),
        "prompt": None
        if prompt is None
        else {
            "exact": _answer(prompt.ranking, prompt.exact),
            "other": _answer(prompt.ranking, prompt.other),
        },
        "rankings": [_ranking(r, machines) for r in found.rankings],
        "held": list(found.held),
    }
    return json.dumps(_plain(told), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _name(candidate: Candidate) -> dict[str, str]:
    return {"backend": candidate.backend, "options": candidate.options}


def _answer(ranking: Ranking | None, answer: Candidate | None) -> dict[str, str] | None:
    if ranking is None or answer is None:
        return None
    return {**_name(answer), "python": ranking.python(answer)}


def _ranking(ranking: Ranking, machines: Machines) -> dict[str, Any]:
    address = str(ranking.setting["machine"])
    memory = WORDS[ranking.question.mode].memory
    return {
        "setting": dict(ranking.setting),
        "machine": machine_words(machines.get(address), address),
        "exact": _answer(ranking, ranking.exact),
        "other": _answer(ranking, ranking.other),
        "baseline": _name(ranking.baseline) if ranking.baseline else None,
        "would_qualify": [
            {**_name(r.candidate), "limits": r.limits, "never_measured": r.unmeasured}
            for r in relaxations(ranking)
        ],
        "lengths": list(ranking.lengths),
        "candidates": [_candidate(c, memory) for c in ranking.candidates],
    }


def _candidate(candidate: Candidate, memory: str) -> dict[str, Any]:
    quality = candidate.quality
    return {
        **_name(candidate),
        "type": candidate.type,
        "qualifies": candidate.qualifies,
        "uses": [use for use, why in candidate.uses.items() if not why],
        "speedup": dict(zip(("value", "low", "high"), candidate.speedup[:3], strict=True)),
        "reasons": dict(candidate.reasons),
        "quality": {
            "verdict": quality.verdict,
            "text": quality.text,
            "evidence": [asdict(one) for one in quality.evidence],
        },
        "latency": _reading(candidate.latency, "latency"),
        "memory": _reading(candidate.memory, memory),
    }


def _reading(reading: Reading, metric: str) -> dict[str, Any]:
    return {
        "value": reading.value, "low": reading.low, "high": reading.high, "unit": UNITS[metric],
        "metric": metric, "basis": reading.basis if reading.known else None,
        "lengths": list(reading.between or reading.fitted), "launches": len(reading.launches),
        "converged": reading.converged, "note": reading.note,
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
