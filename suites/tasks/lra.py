"""Long Range Arena's ListOps and retrieval, from a folder in its own format.

`suites.tasks.tsv` says which files those are.

Tay et al. 2021, arXiv 2011.04006. A sequence is what the model reads of an example and one token
more, which asks; the class is its label there, written as the digit's token:

- ListOps: the words of the expression, then the asking token.
- retrieval: the bytes of both texts with a separator between, then the asking token. The original
  encodes the texts apart, with two copies of one encoder, and compares what comes out: the same
  data, another problem.

What does not fit into `seq_len` is cut, and said in the facts: of an expression its end, as in the
original (which takes 2000 words: none of its own examples is longer); of two texts the ends, each
keeping half of the room, or more where the other is shorter. A training example that, once cut,
reads as one of the test split is left out: the splits share no sequence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attention.checks import check_int
from suites.content_names import check_unchanged, find, folder_digest
from suites.tasks.base import IGNORED, Batch, Bools, Form, Ints, StoredTask, generator
from suites.tasks.drawing import integers
from suites.tasks.hiding import DRAWS, hide, next_tokens
from suites.tasks.registry import register
from suites.tasks.tsv import WORDS, Rows, find_format, read

PRETRAINING_DENSITY = 0.15
SYMBOLS = {"listops": len(WORDS), "retrieval": 256}
"""Ordinary tokens of a format; behind them stand padding, separator, asking token and mask."""


class _Folder(NamedTuple):
    """What a folder holds."""

    sha256: str
    kind: str
    train: Rows
    test: Rows


@cache
def _load(name: str, path: Path) -> _Folder:
    digest = folder_digest(path)
    check_unchanged("data", name, digest, path)
    kind = find_format(path)
    return _Folder(digest, kind, read(path, kind, "train"), read(path, kind, "test"))


@register("lra")
class LongRangeArena(StoredTask):
    """Classify sequences of Long Range Arena.

    Args:
        seq_len: N: tokens of a sequence with the one that asks, at least 4.
        form: ``causal`` or ``bidirectional``.
        data: content name of the folder.
        files: content's name to path.

    Raises:
        ValueError: if an option is out of range, or the folder cannot be had, is broken, or has
            no training example that is not in the test split too.
        TypeError: if an option has the wrong type.
    """

    summary = "ListOps or retrieval from a folder in Long Range Arena's format"
    paper = "Tay et al. 2021, arXiv 2011.04006"
    default_seq_len = 2048

    def __init__(
        self,
        *,
        seq_len: int,
        form: Form,
        data: str,
        files: Mapping[str, Path] | None = None,
    ) -> None:
        super().__init__(seq_len=check_int("seq_len", seq_len, minimum=4), form=form)
        if not isinstance(data, str):
            raise TypeError(f"data: expected a content's name, got {data!r}")
        self.data = data
        self._folder = _load(data, find("data", data, files or {}))
        self.symbols = SYMBOLS[self._folder.kind]
        self.pad, self.separator, self.ask, self.mask = range(self.symbols, self.symbols + 4)
        self.vocab_size = self.symbols + 4
        self._train_rows = self._unseen()
        # Without padding no mask: a backend that takes none can be asked.
        splits = (self._folder.train, self._folder.test)
        self._padded = any(
            (self._lengths(rows).sum(axis=1) < self._room(rows)).any() for rows in splits
        )
        classes = np.bincount(self._folder.train.labels[self._train_rows])
        self.chance = float(np.mean(self._folder.test.labels == classes.argmax()))

    def _unseen(self) -> Ints:
        """Return the training rows that do not read as one of the test split."""
        held = set(self._readings(self._folder.test))
        train = enumerate(self._readings(self._folder.train))
        left = [row for row, reading in train if reading not in held]
        if not left:
            raise ValueError(
                f"data: every training example of {self.data}, cut to seq_len={self.seq_len}, is "
                "in the test split too"
            )
        return np.array(left, np.int64)

    def _readings(self, rows: Rows) -> Iterator[bytes]:
        """Walk the digests of what the model reads of each row."""
        for firsts, lengths in zip(rows.first, self._lengths(rows), strict=True):
            digest = hashlib.blake2b(digest_size=16)
            for first, length in zip(firsts.tolist(), lengths.tolist(), strict=True):
                digest.update(b"%d:" % length + rows.data[first : first + length].tobytes())
            yield digest.digest()

    def _room(self, rows: Rows) -> int:
        """Return the tokens that are left for texts: not separators, not the asking token."""
        return self.seq_len - int(rows.first.shape[1])

    def _lengths(self, rows: Rows) -> Ints:
        """Return how much is read of each text of each row: int64 ``[R, P]``."""
        whole: Ints = rows.behind - rows.first
        room = self._room(rows)
        if whole.shape[1] == 1:
            return np.minimum(whole, room)
        half = room // 2
        second = np.minimum(whole[:, 1], np.maximum(room - whole[:, 0], room - half))
        return np.stack([np.minimum(whole[:, 0], room - second), second], axis=1)

    @property
    def facts(self) -> dict[str, Any]:
        """The folder: name, hash and format, examples, and the share of the test split cut."""
        test = self._folder.test
        cut = (self._lengths(test) < test.behind - test.first).any(axis=1)
        return {
            "data": self.data,
            "sha256": self._folder.sha256,
            "format": self._folder.kind,
            "train_examples": len(self._train_rows),
            "train_left_out": len(self._folder.train.labels) - len(self._train_rows),
            "test_examples": len(test.labels),
            "test_cut": float(cut.mean()),
        }

    @property
    def num_tested(self) -> int:
        """Examples of the test split."""
        return len(self._folder.test.labels)

    def trained(self, rng: np.random.Generator, size: int) -> Batch:
        """Draw training examples; the class is the label at each sequence's last token."""
        return self._asked(self._folder.train, self._drawn(size, rng))

    def tested(self, which: Ints) -> Batch:
        """Return examples of the test split, in the file's order; padding stands behind."""
        return self._asked(self._folder.test, which)

    def pretraining(self, size: int, *, seed: int, index: int) -> Batch:
        """Return training examples with their own tokens as labels.

        Bidirectional: 15 % of each sequence's symbols hidden. Causal: the next symbol, separator
        or asking token at each one.
        """
        rng = generator(seed, index, "train")
        ids, there = self._sequences(self._folder.train, self._drawn(size, rng))
        if self.form == "causal":
            return self._batch(ids, next_tokens(ids, there), there)
        hidden, labels = hide(
            ids,
            rng.random((size, DRAWS, self.seq_len)),
            density=PRETRAINING_DENSITY,
            mask_id=self.mask,
            ordinary=self.symbols,
            allowed=ids < self.symbols,
        )
        return self._batch(hidden, labels, there)

    def _drawn(self, size: int, rng: np.random.Generator) -> Ints:
        return self._train_rows[integers(rng, len(self._train_rows), size)]

    def _asked(self, rows: Rows, which: Ints) -> Batch:
        """Return rows with their class as the label of the last token."""
        ids, there = self._sequences(rows, which)
        labels = np.where(
            ids == self.ask, rows.labels[which][:, None] + self._first_class, IGNORED
        )
        return self._batch(ids, labels, there)

    @property
    def _first_class(self) -> int:
        """Id of class 0: the word, or the byte, of the digit 0."""
        return 0 if self._folder.kind == "listops" else ord("0")

    def _sequences(self, rows: Rows, which: Ints) -> tuple[Ints, Bools]:
        """Return ids int64 ``[B, N]`` and where they are no padding, bool ``[B, N]``."""
        ids = np.full((len(which), self.seq_len), self.pad, np.int64)
        chosen = Rows(rows.data, rows.first[which], rows.behind[which], rows.labels[which])
        for row, lengths in enumerate(self._lengths(chosen)):
            place = 0
            for first, length in zip(chosen.first[row], lengths, strict=True):
                ids[row, place : place + length] = rows.data[first : first + length]
                ids[row, place + length] = self.separator
                place += length + 1
            ids[row, place - 1] = self.ask
        return ids, ids != self.pad

    def _batch(self, ids: Ints, labels: Ints, there: Bools) -> Batch:
        return Batch.of(ids, labels, key_padding_mask=there if self._padded else None)
