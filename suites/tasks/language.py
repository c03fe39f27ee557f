"""A byte-level language model: the next byte, hidden bytes, or hidden spans that a decoder writes.

Tokens are bytes, 0 to 255; what else an objective needs has the ids from 256 on. The test split is
cut into windows that do not overlap, and the context restarts at each, so no byte is predicted
from more than N others: figures of different `seq_len` are of different problems.

``bits_per_byte`` is the loss on the test split divided by ln 2. What it is per:

- ``next``: every byte of a window. All but the split's first are predicted once, the first of a
  window from the one byte before it, the last from N.
- ``masked``: the hidden bytes alone (15 %: 80 % of them masked, 10 % replaced, 10 % kept), given
  bytes on both sides. Not comparable with ``next``, nor with a compressor.
- ``denoise``: the hidden bytes alone, given the kept ones, how the spans lie and the hidden ones
  before them. Where a span ends is trained (sentinels and the end are labels there, as in the
  paper), but not asked in the test split: it would be counted among the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from attention.base import UnsupportedError
from attention.checks import check_choice, check_float, check_int
from suites.tasks.base import IGNORED, Architecture, Batch, Form, Ints, StoredTask, generator
from suites.tasks.corpus import load
from suites.tasks.drawing import integers
from suites.tasks.hiding import DRAWS, Spans, corrupt, fit, hide
from suites.tasks.registry import register

OBJECTIVES = ("next", "masked", "denoise")
FORM: Mapping[str, Form] = {
    "next": "causal",
    "masked": "bidirectional",
    "denoise": "bidirectional",
}
"""The form that an objective has; an encoder-decoder's is its encoder's."""

BYTES = 256
MASK = BYTES
START, END, SENTINEL = BYTES, BYTES + 1, BYTES + 2
"""Of denoise: before and behind a target, and the first of as many sentinels as spans."""


@register("language")
class Language(StoredTask):
    """Learn a text byte by byte.

    Args:
        seq_len: N: bytes of a window, or tokens of an encoder's input, at least 8.
        form: ``causal`` for next, ``bidirectional`` for the others.
        objective: ``next``, ``masked`` or ``denoise``; ``None`` = next or masked, as the form.
        corpus: ``stdlib`` or a file's content name.
        density: share of a window that is hidden, above 0 and at most 0.5; ``None`` = 0.15, of
            masked and denoise.
        span: mean length of a hidden span in bytes, at least 1; ``None`` = 3, of denoise (ByT5,
            arXiv 2105.13626, takes 20 for bytes).
        files: content's name to path.

    Raises:
        ValueError: if an option is out of range or has no use, or the corpus cannot be had or has
            no window for one of the splits.
        TypeError: if an option has the wrong type.
        UnsupportedError: if the objective has another form.
    """

    summary = "bytes of a text: the next one, hidden ones, or hidden spans"
    paper = "Devlin et al. 2019, arXiv 1810.04805; Raffel et al. 2020, arXiv 1910.10683"
    metric = "bits_per_byte"
    default_seq_len = 256

    def __init__(
        self,
        *,
        seq_len: int,
        form: Form,
        objective: Literal["next", "masked", "denoise"] | None = None,
        corpus: str = "stdlib",
        density: float | None = None,
        span: float | None = None,
        files: Mapping[str, Path] | None = None,
    ) -> None:
        super().__init__(seq_len=check_int("seq_len", seq_len, minimum=8), form=form)
        if objective is None:
            objective = "next" if form == "causal" else "masked"
        self.objective = check_choice("objective", objective, OBJECTIVES)
        if FORM[objective] != form:
            raise UnsupportedError(
                f"objective: {objective} has the {FORM[objective]} form alone, got {form}"
            )
        self.density = self._option("density", density, 0.15, but="next")
        if self.density is not None:
            check_float("density", density := self.density, above=0.0)
            if density > 0.5:
                raise ValueError(f"density: expected at most 0.5, got {density}")
        self.span = self._option("span", span, 3.0, but="next masked")
        if self.span is not None:
            check_float("span", self.span, minimum=1.0)
        if not isinstance(corpus, str):
            raise TypeError(f"corpus: expected stdlib or a content's name, got {corpus!r}")
        self.corpus = corpus
        self.vocab_size = BYTES + (self.objective == "masked")
        if self.objective == "denoise":
            self.vocab_size = SENTINEL + self._spans.count
        self._corpus = load(corpus, files)
        self._check_room()
        counts = np.bincount(self._corpus.train, minlength=BYTES)
        self.chance = float(np.mean(self._corpus.test == counts.argmax()))

    def _option(self, name: str, value: float | None, default: float, but: str) -> float | None:
        """Return an option in force; ``None`` where the objective has no use for it."""
        if self.objective not in but.split():
            return default if value is None else value
        if value is not None:
            raise ValueError(f"{name}: {self.objective} hides no such thing; got {value!r}")
        return None

    def _check_room(self) -> None:
        """Check that each split has a window."""
        for split in ("train", "test"):
            size = len(getattr(self._corpus, split))
            if size < self._window:
                raise ValueError(
                    f"corpus: the {split} split of {self.corpus} has {size} bytes, and a window "
                    f"takes {self._window} (seq_len={self.seq_len}): expected a longer text (the "
                    "test split is about 5 % of it) or a shorter seq_len"
                )

    @property
    def architecture(self) -> Architecture:
        """Encoder-decoder for denoise, else by the form."""
        return "encoder_decoder" if self.objective == "denoise" else super().architecture

    @property
    def facts(self) -> dict[str, Any]:
        """The corpus: its name, hash and size, and what zlib and xz make of its test split."""
        return self._corpus.facts

    @cached_property
    def _spans(self) -> Spans:
        assert self.density is not None
        assert self.span is not None
        return fit(self.seq_len, density=self.density, mean=self.span)

    @cached_property
    def _stride(self) -> int:
        """Bytes from one window of the test split to the next."""
        return self._spans.text if self.objective == "denoise" else self.seq_len

    @property
    def _window(self) -> int:
        """Bytes that a window reads."""
        return self._stride + (self.objective == "next")

    @cached_property
    def _test_starts(self) -> Ints:
        """Where the windows of the test split begin: always the same order, spread over it."""
        spare = self._window - self._stride
        windows = (len(self._corpus.test) - spare) // self._stride
        return np.argsort(generator(0, 0, "test").random(windows), kind="stable") * self._stride

    @property
    def num_tested(self) -> int:
        """Windows of the test split."""
        return len(self._test_starts)

    def trained(self, rng: np.random.Generator, size: int) -> Batch:
        """Return windows that begin anywhere in the train split."""
        text = self._corpus.train
        starts = integers(rng, len(text) - self._window + 1, size)
        return self._ask(text, starts, rng.random((size, self._draws)), every=True)

    def tested(self, which: Ints) -> Batch:
        """Return windows of the test split; what is hidden in one hangs on its number alone."""
        draws = np.zeros((len(which), 0))
        if self._draws:
            draws = np.stack([generator(0, int(w), "test").random(self._draws) for w in which])
        return self._ask(self._corpus.test, self._test_starts[which], draws, every=False)

    @cached_property
    def _draws(self) -> int:
        """Uniform numbers that a window takes."""
        if self.objective == "denoise":
            return self._spans.draws
        return DRAWS * self.seq_len if self.objective == "masked" else 0

    def _ask(
        self,
        text: NDArray[np.uint8],
        starts: Ints,
        draws: NDArray[np.float64],
        *,
        every: bool,
    ) -> Batch:
        """Return the batch of the windows at `starts`; `every` token a label, or bytes alone."""
        windows = text[starts[:, None] + np.arange(self._window)].astype(np.int64)
        if self.objective == "next":
            both = torch.from_numpy(windows)
            return Batch(both[:, :-1].contiguous(), both[:, 1:].contiguous())
        assert self.density is not None
        if self.objective == "masked":
            ids, labels = hide(
                windows,
                draws.reshape(len(windows), DRAWS, self.seq_len),
                density=self.density,
                mask_id=MASK,
                ordinary=BYTES,
            )
            return Batch.of(ids, labels)
        ids, targets = corrupt(windows, draws, self._spans, sentinel=SENTINEL, end=END)
        read = np.concatenate([np.full((len(ids), 1), START), targets[:, :-1]], axis=1)
        labels = targets if every else np.where(targets < BYTES, targets, IGNORED)
        return Batch.of(ids, labels, decoder_ids=read)
