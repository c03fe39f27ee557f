"""The contract of a task: batches from a seed, labels, and what an accuracy is counted under.

A task is a pure function of its options, a seed and an index: nothing is stored, the same batch
comes out on every machine, and training goes on where it was interrupted. Random numbers come
from numpy's Philox (`generator`), not from torch: their stream is the same for every torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from torch import Tensor

from attention.base import UnsupportedError
from models.objectives import IGNORED

Form = Literal["causal", "bidirectional"]
Split = Literal["train", "test"]
Architecture = Literal["encoder", "decoder", "encoder_decoder"]

SPLITS: tuple[str, ...] = get_args(Split)

__all__ = ["IGNORED", "Architecture", "Batch", "Form", "Split", "Task", "generator"]


class Batch(NamedTuple):
    """Sequences and what is asked of them. Axes: B sequences, N tokens, M of a decoder.

    Attributes:
        ids: int64 ``[B, N]``, what the model reads.
        labels: int64 ``[B, N]`` (``[B, M]`` beside `decoder_ids`): the token that is the answer at
            this very position, nothing shifted; `IGNORED` where nothing is asked.
        groups: int64 ``[B, N]``: under which distance (or depth) an answer is counted; read where
            `labels` asks. ``None`` = the task counts under none.
        key_padding_mask: bool ``[B, N]``, True = a token; padding stands behind. ``None`` = all.
        decoder_ids: int64 ``[B, M]``, what an encoder-decoder's decoder reads.
    """

    ids: Tensor
    labels: Tensor
    groups: Tensor | None = None
    key_padding_mask: Tensor | None = None
    decoder_ids: Tensor | None = None


class Task(ABC):
    """One task at one difficulty. A subclass checks its options in the constructor.

    Constructors take ``seq_len`` and ``form`` and options by keyword, all typed and documented;
    an unknown or impossible one is an error that names it, what it was and what is accepted.

    Attributes:
        name: as the command line writes it.
        summary: one line, what it probes.
        paper: authors, year, arXiv id.
        metric: what is reported first.
        group: what `Batch.groups` holds: ``distance``, ``depth`` or "".
        vocab_size: of ids and labels.
        seq_len: N, tokens.
        form: whether the model sees the past alone.
        architecture: of the model that is asked.
        chance: accuracy of a guess that knows the task and not the sequence.
        facts: what a record says beside: a corpus's hash, a compressor's figure.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]
    metric: ClassVar[Literal["accuracy", "bits_per_byte"]] = "accuracy"
    group: ClassVar[str] = ""

    vocab_size: int
    seq_len: int
    form: Form
    chance: float

    @property
    def architecture(self) -> Architecture:
        """The architecture whose model is asked: by the form, but for sequence to sequence."""
        return "decoder" if self.form == "causal" else "encoder"

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of the task's data beside its results."""
        return {}

    @abstractmethod
    def batch(self, size: int, *, seed: int, index: int, split: Split) -> Batch:
        """Return batch number `index` of a split, `size` sequences, on the CPU.

        The splits share no sequence, whatever the seeds.
        """

    def test_batches(self, size: int, count: int, *, seed: int) -> Iterator[Batch]:
        """Walk at most `count` sequences of the test split, `size` at a time."""
        for index in range(-(-count // size)):
            yield self.batch(min(size, count - index * size), seed=seed, index=index, split="test")

    def pretraining(self, size: int, *, seed: int, index: int) -> Batch:
        """Return a batch of the task's own inputs with their own tokens as labels.

        Self-pretraining, Amos et al. 2023, arXiv 2310.02980: masked tokens in the bidirectional
        form, the next token in the causal one.

        Raises:
            UnsupportedError: if the task has none.
        """
        raise UnsupportedError(f"pretrain: {self.name} has no inputs worth it")


def generator(seed: int, index: int, split: str) -> np.random.Generator:
    """Return the random numbers of one batch: another stream for every seed, index and split."""
    key = np.random.SeedSequence([seed, index, SPLITS.index(split)])
    return np.random.Generator(np.random.Philox(key))
