"""What is known of a backend's quality, in words, what it comes to, and what that is good for.

Evidence is of a backend with its options, and names the setting that it was taken in; it is not
asked that this setting be that of a time. What was learnt comes first, then the error on the
inputs of a trained model, last the error on random inputs, which says little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from results.text import numbers
from results.text.clean import clean
from results.text.labels import name_of, options_of
from results.text.method_types import MethodType

Use = Literal["swap", "finetune", "scratch", "decode"]

USES: Mapping[Use, str] = {
    "swap": "into a trained model, without training",
    "finetune": "into a trained model, and training goes on",
    "scratch": "in a model that is trained with it",
    "decode": "token by token, with a state",
}
"""What a method is wanted for."""

Source = Literal["learnt", "trained inputs", "random inputs"]
Verdict = Literal["exact", "good", "poor", "unknown"]

SPEED_INPUTS = "gaussian:scale=0.3"
"""What the errors in records of kind speed are taken on: normal q, k and v of this scale."""

TRAINED = "trained"
"""The inputs of suite error that a trained model has in its layers."""

LANGUAGE, RECALL = "language", "recall"
"""The tasks that count."""

OBJECTIVES = ("", "next", "masked")
"""Of text, those that the attention in question has to learn by itself."""

USELESS = 1.0
"""The relative error of an output of zeros: what is above says nothing of a method."""

MOST_BITS = 1.1
"""Bits per byte up to so many times exact attention's are good."""

LARGEST_ERROR = 0.5
"""An error on a trained model's inputs is good up to here, half that of an output of zeros. Of
what was measured, windows have 0.1 and learn as well as exact attention; what has 1 or more learns
far less."""

LEAST_RECALL = 0.5
"""An accuracy is good from this part of the way from chance to exact attention's on."""

SAYS_NOTHING = "not trained: says nothing"
AS_FAR_AS_ZEROS = "as far off as zeros would be"
"""What is said of an error that does not count."""

UNKNOWN = "not measured"

BETTER = "fewer bits/byte, smaller errors and higher accuracies are better"
"""What is said once beside evidence."""

BETTER_OF: Mapping[str, str] = {
    "bits_per_byte": "fewer is better", "accuracy": "more is better",
    "relative_error": "less is better",
}  # fmt: skip
"""What is said beside one value, by its metric."""

WINDOWS = ("longformer",)
"""Backends whose window a trained model may have anyway."""

WINDOW_SWAP = "swap only into a model that has this window anyway"


@dataclass(frozen=True)
class Evidence:
    """One thing that is known.

    Attributes:
        source: where it is from.
        metric: ``bits_per_byte``, ``accuracy`` or ``relative_error``.
        value: of the backend.
        low: of its 95 % interval over seeds, of an error the least over launches; NaN = none.
        high: likewise.
        exact: what `sdpa` reached in the same training; NaN = not known, and of an error.
        chance: of an accuracy, a guess's; NaN = not known.
        on: the task or the inputs, as the records spell them.
        setting: length, options and form where they are others than asked, in words.
        lacking: how many seeds have a value, where some have none; "" = all have.
        counts: whether it says something: an error above 1, or of projections that were never
            trained, does not.
        is_untrained: whether the error is of projections that were never trained.
        is_rounding: whether the error is no more than that of its dtype.
        is_itself: whether it is that of `sdpa`, beside which nothing stands.
    """

    source: Source
    metric: str
    value: float
    low: float = math.nan
    high: float = math.nan
    exact: float = math.nan
    chance: float = math.nan
    on: str = ""
    setting: str = ""
    lacking: str = ""
    counts: bool = True
    is_untrained: bool = False
    is_rounding: bool = False
    is_itself: bool = False

    @property
    def least(self) -> float:
        """The lower end of the interval; the value where there is none."""
        return self.low if math.isfinite(self.low) else self.value

    @property
    def greatest(self) -> float:
        """The upper end of the interval; the value where there is none."""
        return self.high if math.isfinite(self.high) else self.value

    @property
    def is_good(self) -> bool:
        """Whether it speaks for the method."""
        if self.metric == "bits_per_byte":
            return self.value <= MOST_BITS * self.exact  # false where `exact` is not known
        if self.metric == "accuracy":
            chance = self.chance if math.isfinite(self.chance) else 0.0
            exact = self.exact if math.isfinite(self.exact) else 1.0
            return self.value >= chance + LEAST_RECALL * (exact - chance)
        return self.counts and self.greatest <= LARGEST_ERROR

    @property
    def brief(self) -> str:
        """The evidence without its setting."""
        return self._what + self._beside

    @property
    def text(self) -> str:
        """The evidence in words: ``masked text 1.97 bits/byte, sdpa 2.08 (256 tokens)``."""
        where = [part for part in (self.setting, self.lacking) if part]
        return self.brief + (f" ({', '.join(where)})" if where else "")

    @property
    def _what(self) -> str:
        if self.metric == "bits_per_byte":
            masked = options_of(self.on).get("objective") == "masked"
            return f"{'masked ' if masked else ''}text {self.value:.2f} bits/byte"
        if self.metric == "accuracy":
            return f"{clean(name_of(self.on))} {numbers.percent(self.value)}"
        of = "trained" if self.source == "trained inputs" else f"random ({clean(self.on)})"
        little = ", says little" if self.source == "random inputs" else ""
        if not self.counts:
            little = f", {SAYS_NOTHING if self.is_untrained else AS_FAR_AS_ZEROS}"
        return f"error {error_digits(self.value)} on {of} inputs{little}"

    @property
    def _beside(self) -> str:
        parts = []
        if math.isfinite(self.chance):
            parts.append(f"chance {numbers.percent(self.chance)}")
        if math.isfinite(self.exact) and not self.is_itself:
            is_share = self.metric == "accuracy"
            parts.append(
                f"sdpa {numbers.percent(self.exact) if is_share else f'{self.exact:.2f}'}"
            )
        return "".join(f", {part}" for part in parts)


@dataclass(frozen=True)
class Quality:
    """What is known of a backend with its options.

    Attributes:
        type: what it computes.
        evidence: the best first; empty = nothing.
    """

    type: MethodType
    evidence: tuple[Evidence, ...] = ()

    @property
    def best(self) -> Evidence | None:
        """The first that says something, on inputs that matter."""
        return next((e for e in self.evidence if e.counts and e.source != "random inputs"), None)

    @property
    def verdict(self) -> Verdict:
        """What the evidence comes to: what was learnt decides, without it the trained inputs."""
        if self.type == "exact":
            return "exact"
        if (best := self.best) is not None:
            return "good" if best.is_good else "poor"
        return "poor" if self.find("relative_error", "trained inputs") else "unknown"

    def find(self, metric: str, source: Source | None = None) -> Evidence | None:
        """Return the first evidence of a metric, of one source if that is named."""
        return next(
            (e for e in self.evidence if e.metric == metric and source in (None, e.source)), None
        )

    @property
    def lines(self) -> list[str]:
        """What was learnt, then the error that counts: random inputs where there is no other."""
        if self.type == "exact":
            return ["exact"]
        learnt = [e for e in self.evidence if e.source == "learnt"]
        errors = [e for e in self.evidence if e.source != "learnt"][:1]
        return [e.text for e in (*learnt, *errors)] or [UNKNOWN]

    @property
    def text(self) -> str:
        """The same in one line."""
        return "; ".join(self.lines)

    @property
    def short(self) -> str:
        """The best evidence alone, without its setting, as a table's cell has room for it."""
        if self.type == "exact":
            return "exact"
        return self._first.brief if self._first else UNKNOWN

    @property
    def judged(self) -> str:
        """The same, and which way is better."""
        if self.type == "exact" or self._first is None:
            return self.short
        return f"{self.short} ({BETTER_OF[self._first.metric]})"

    @property
    def _first(self) -> Evidence | None:
        return self.best or next(iter(self.evidence), None)


def error_digits(value: float, *, to: numbers.To = "nearest") -> str:
    """Write an error: two digits, those of rounding with an exponent."""
    if 0 < value < 1e-3:
        places = 1 - math.floor(math.log10(value))
        return f"{numbers.rounded(value, places, to):.1e}".replace("e-0", "e-")
    return numbers.digits(value, 2, to=to)


# -- uses -----------------------------------------------------------------------------------------


def serves(
    backend: str, quality: Quality, mode: str, *, max_error: float | None = None
) -> Mapping[Use, str]:
    """Return the uses, each with the reason why a method does not serve it; "" = it does.

    Args:
        backend: its name.
        quality: what is known of it.
        mode: of the call.
        max_error: the largest error that is asked for; None = nobody asked.
    """
    no_decode = "" if mode == "decode" else "needs mode decode"
    if quality.type == "exact":
        return {"swap": "", "finetune": "", "scratch": "", "decode": no_decode}
    verdict = unfit(quality, max_error)
    swap = "" if backend in WINDOWS else "a trained model computes something else with it"
    return {
        "swap": swap, "finetune": verdict or _far_from_trained(quality, max_error),
        "scratch": verdict,
        "decode": no_decode or verdict,
    }  # fmt: skip


def unfit(quality: Quality, max_error: float | None = None) -> str:
    """Return why the quality does not do, "" if it does.

    Where nothing was learnt with a method and a largest error is asked for, that decides alone.
    """
    if quality.verdict in ("exact", "good"):
        return ""
    if max_error is not None and all(e.source != "learnt" for e in quality.evidence):
        return ""
    return quality.short if quality.verdict == "poor" else f"quality not known: {quality.short}"


def _far_from_trained(quality: Quality, max_error: float | None) -> str:
    """Return why training cannot go on from a model that was trained with softmax."""
    error = quality.find("relative_error", "trained inputs")
    if error is None:
        return "its error on trained inputs is not measured"
    return "" if max_error is not None or error.is_good else error.text
