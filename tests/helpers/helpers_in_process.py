"""A launcher that runs each request in this process: no server, which takes seconds to start."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers_sweep import FAKE_SUITES

from suites.processes.outcome import Outcome, scrub, tail

MILD = frozenset(
    {"linear", "quadratic", "raises", "answers_nonsense", "answers_nan", "out_of_memory", "sleeps",
     "times_out", "unsupported", "says_plugins", "roof"}
)  # fmt: skip
"""What the stand-in suites may be asked for here: the rest would end the tests."""


class InProcess:
    """Answers as the suites of a folder do, real ones or the stand-ins.

    What ends a process, or outlives one, is no test for it.
    """

    def __init__(self, benchmark_dir: Path, **_: object) -> None:
        if benchmark_dir == FAKE_SUITES:
            fake = importlib.import_module("fake_suites.benchmarks")

            def fakes(request: Mapping[str, Any]) -> Any:
                arms = request.get("case", {}).get("arms", [{"name": "linear"}])
                if arms[0]["name"] not in MILD:
                    pytest.fail(f"{arms[0]['name']} needs a process of its own", pytrace=False)
                return getattr(fake, request["do"])(request)

            self._answer: Any = fakes
        else:
            worker = importlib.import_module("suites.worker.run")
            self._answer = lambda request: worker.answer(request)["record"]

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def ask(self, request: Mapping[str, Any], **_: object) -> Outcome:
        """Run one request; an exception fails it, as in a process of its own."""
        began, out, record, reason = time.perf_counter(), io.StringIO(), None, None
        with contextlib.redirect_stderr(out):
            try:
                # This process holds the run's lock already, and would wait for itself.
                record = json.loads(json.dumps(self._answer({**request, "lock": None})))
            except Exception as error:
                reason = scrub(f"{type(error).__name__}: {error}")
        status = None if reason is None else "failed"
        wall = max(1e-3, time.perf_counter() - began)
        return Outcome(record, status, reason, tail(out.getvalue()), wall)
