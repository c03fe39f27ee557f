"""What is known of each method's quality: a cell a method, and the command that measures it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from results.chapters.speed.rows import Chapter
from results.page.blocks import Cell
from results.recommendation.candidates import shipped_evidence
from results.recommendation.evidence import Evidences
from results.recommendation.quality import Quality
from results.summary.methods import Comparison, Method


@dataclass(frozen=True)
class Qualities:
    """What is known of the methods of a mode that compute something else.

    Attributes:
        found: by the method's key.
        note: how to measure what is not known; "" where all is.
    """

    found: Mapping[tuple[str, str], Quality]
    note: str

    @property
    def poor(self) -> frozenset[tuple[str, str]]:
        """The keys of methods whose quality is known and does not do."""
        return frozenset(key for key, one in self.found.items() if one.verdict == "poor")

    def cell(self, method: Method) -> Cell:
        """Write the best evidence of a method."""
        return Cell(self.found[method.key].short if method.key in self.found else "exact")


def qualities(chapter: Chapter, comparison: Comparison) -> Qualities:
    """Return what is known of the quality of a mode's methods, and how to measure the rest."""
    known = Evidences(chapter.analysis.run.frame, shipped_evidence())
    is_causal = bool(chapter.setting["is_causal"]) or comparison.mode == "decode"
    found = {
        m.key: known.quality(m.backend, m.options, is_causal=is_causal, seq_len=comparison.length)
        for m in comparison.methods
        if not m.is_exact
    }
    unknown = [m for m in comparison.methods if m.key in found and found[m.key].best is None]
    return Qualities(found, _command(unknown, is_causal=is_causal) if unknown else "")


def _command(methods: list[Method], *, is_causal: bool) -> str:
    """Say how to measure the error of methods on the inputs of a trained model."""
    words = ["attnbench", "run", "error", "--inputs", "trained"]
    words += ["--causal"] * is_causal
    words += [word for m in methods for word in ("--backend", m.label)]
    return f"Quality on inputs that matter is not known of all; to measure it: {shlex.join(words)}"
