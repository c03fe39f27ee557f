"""The contract of a task: batches from a seed, labels, and what an accuracy is counted under.

A task is a pure function of its options, a seed and an index: nothing is stored, the same batch
comes out on every machine, and training goes on where it was interrupted. Random numbers come
from numpy's Philox (`generator`), not from torch: their stream is the same for every torch.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from attention.base import UnsupportedError
from attention.checks import check_choice, check_int
from models.objectives import IGNORED
from suites.tasks.forms import FORMS, Form

Split = Literal["train", "test"]
Architecture = Literal["encoder", "decoder", "encoder_decoder"]

SPLITS: tuple[str, ...] = get_args(Split)

TEST_SHARE = 0.25
"""Of all sequences that a task can draw, those that are the test split's."""

MIN_CONTENTS = 4096
"""Different sequences that a task must be able to draw, so that each split has its share."""

_GIVEN = ("self", "seq_len", "form", "files")
_GOLDEN = 0x9E3779B97F4A7C15
_TEST_BELOW = np.uint64(int(TEST_SHARE * 2**64))

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

__all__ = [
    "FORMS", "IGNORED", "SPLITS", "Architecture", "Batch", "Bools", "Form", "Ints", "Split",
    "StoredTask", "Task", "check_contents", "generator", "is_test", "of_split",
]  # fmt: skip


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

    @classmethod
    def of(cls, ids: Ints, labels: Ints, **others: Ints | Bools | None) -> Batch:
        """Make a batch of numpy's arrays; `others` are further attributes, by name."""
        further = {n: None if x is None else torch.from_numpy(x) for n, x in others.items()}
        return cls(torch.from_numpy(ids), torch.from_numpy(labels), **further)


class Task(ABC):
    """One task at one difficulty. A subclass checks its options in the constructor.

    Constructors take ``seq_len`` and ``form`` and options by keyword, all typed and documented;
    an unknown or impossible one is an error that names it, what it was and what is accepted. Each
    option is kept under its own name (`settings`).

    Args:
        seq_len: N, tokens.
        form: causal or bidirectional.

    Attributes:
        name: as the command line writes it.
        summary: one line, what it probes.
        paper: authors, year, arXiv id.
        metric: what is reported first.
        group: what `Batch.groups` holds: ``distance``, ``depth`` or "".
        default_seq_len: N where nobody says otherwise, of `suites.tasks.registry` alone: a sweep
            takes that of the row that trains the task (`attnbench list --tasks` shows it), and of
            a task without one ``--seq-len``, or 64.
        needs_files: whether the constructor takes ``files`` too: a content's name to its path.
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
    default_seq_len: ClassVar[int] = 64
    needs_files: ClassVar[bool] = False

    vocab_size: int
    seq_len: int
    form: Form
    chance: float

    def __init__(self, *, seq_len: int, form: Form) -> None:
        self.seq_len = check_int("seq_len", seq_len, minimum=1)
        self.form = "causal" if check_choice("form", form, FORMS) == "causal" else "bidirectional"

    @classmethod
    def options(cls) -> dict[str, inspect.Parameter]:
        """Return the constructor's options, by name, with defaults and annotations."""
        parameters = inspect.signature(cls.__init__).parameters
        return {name: p for name, p in parameters.items() if name not in _GIVEN}

    @property
    def settings(self) -> dict[str, Any]:
        """Every option in force, by name, as plain values."""
        values = {name: getattr(self, name) for name in self.options()}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}

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


class StoredTask(Task):
    """A task that reads files: training examples are drawn anew, those of the test in order."""

    needs_files = True

    @property
    @abstractmethod
    def num_tested(self) -> int:
        """Examples of the test split."""

    @abstractmethod
    def trained(self, rng: np.random.Generator, size: int) -> Batch:
        """Draw training examples."""

    @abstractmethod
    def tested(self, which: Ints) -> Batch:
        """Return examples of the test split by their numbers ``[B]``, from 0 on."""

    def batch(self, size: int, *, seed: int, index: int, split: Split) -> Batch:
        """Return a batch; of the test split the same examples whatever the seed."""
        check_int("size", size, minimum=1)
        if check_choice("split", split, SPLITS) == "train":
            return self.trained(generator(seed, index, split), size)
        return self.tested((index * size + np.arange(size)) % self.num_tested)

    def test_batches(self, size: int, count: int, *, seed: int) -> Iterator[Batch]:
        """Walk at most `count` examples of the test split, each once, `size` at a time."""
        count = min(count, self.num_tested)
        for first in range(0, count, size):
            yield self.tested(np.arange(first, min(first + size, count)))


def generator(seed: int, index: int, split: str) -> np.random.Generator:
    """Return the random numbers of one batch: another stream for every seed, index and split."""
    words = [check_int("seed", seed, minimum=0), check_int("index", index, minimum=0)]
    place = SPLITS.index(check_choice("split", split, SPLITS))
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([*words, place])))


def of_split(split: str, size: int, draw: Callable[[int], tuple[Ints, ...]]) -> tuple[Ints, ...]:
    """Draw until there are enough sequences of a split, and return the first of them.

    What a sequence is about (its pairs, its symbols) is hashed, and the hash says which split has
    it: the splits share nothing, whatever their seeds, and within a split the distribution is that
    of `draw` but for the sequences that the other one has.

    Args:
        split: whose sequences are kept.
        size: sequences, at least 1.
        draw: returns at least one array of that many rows, or of fewer; the first is the content,
            whole numbers from 0 ``[B, K]`` (zeros behind it change nothing).

    Returns:
        what `draw` returned, `size` rows of each.
    """
    check_int("size", size, minimum=1)
    is_asked = check_choice("split", split, SPLITS) == "test"
    share = TEST_SHARE if is_asked else 1.0 - TEST_SHARE
    parts: list[tuple[Ints, ...]] = []
    count = 0
    while count < size:
        drawn = draw(int((size - count) / share * 1.1) + 4)
        is_ours = is_test(drawn[0]) == is_asked
        parts.append(tuple(array[is_ours] for array in drawn))
        count += int(is_ours.sum())
    return tuple(np.concatenate(arrays)[:size] for arrays in zip(*parts, strict=True))


def is_test(content: Ints) -> Bools:
    """Say of each row of whole numbers ``[B, K]`` whether it is the test split's.

    A dot product with fixed odd multipliers, then SplitMix64's finaliser (Steele et al. 2014),
    modulo 2⁶⁴: the same on every machine.
    """
    places = np.arange(1, content.shape[1] + 1, dtype=np.uint64)
    mixed = content.astype(np.uint64) @ (_mix(places * np.uint64(_GOLDEN)) | np.uint64(1))
    return _mix(mixed + np.uint64(_GOLDEN)) < _TEST_BELOW


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def check_contents(argument: str, value: Any, count: int) -> None:
    """Check that a task can draw enough different sequences for two splits.

    Args:
        argument: that would have to be larger.
        value: what it was.
        count: of different sequences.

    Raises:
        ValueError: if there are fewer than `MIN_CONTENTS`.
    """
    if count < MIN_CONTENTS:
        raise ValueError(
            f"{argument}: {value} leaves {count} different sequences for training and test; "
            f"expected a value that leaves at least {MIN_CONTENTS}"
        )
