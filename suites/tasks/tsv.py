"""Read a folder in Long Range Arena's own format.

Tay et al. 2021, arXiv 2011.04006; as github.com/google-research/long-range-arena reads them:

- ListOps: ``basic_train.tsv`` and ``basic_test.tsv``, a header ``Source<tab>Target``, an
  expression in words apart by spaces and its value, 0 to 9. The brackets ``(`` and ``)``, which
  only say how the tree was built, are left out; 15 words remain.
- retrieval (AAN): ``new_aan_pairs.train.tsv`` and ``new_aan_pairs.test.tsv``, no header, five
  columns: label (0.0 or 1.0), two papers' names, and their texts. No quotes, texts in UTF-8.

The validation files (``basic_val.tsv``, ``new_aan_pairs.eval.tsv``) are not read: nothing is
chosen by them here. Texts stay on the disk and are mapped into memory; expressions become a byte a
word.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WORDS = (*(str(digit) for digit in range(10)), "[MIN", "[MAX", "[MED", "[SM", "]")
"""Words of an expression; their places are their ids, a digit's is its value."""

COLUMNS = ("label", "id1", "id2", "text1", "text2")
FILES = {
    "listops": {"train": "basic_train.tsv", "test": "basic_test.tsv"},
    "retrieval": {"train": "new_aan_pairs.train.tsv", "test": "new_aan_pairs.test.tsv"},
}
CLASSES = {"listops": 10, "retrieval": 2}

# One byte stands for a word while an expression is read; none of them may come from the file.
_OPERATORS = {b"[MIN": b"\x01", b"[MAX": b"\x02", b"[MED": b"\x03", b"[SM": b"\x04"}
_LETTERS = b"0123456789\x01\x02\x03\x04]"
_TO_IDS = bytes.maketrans(_LETTERS, bytes(range(len(WORDS))))
_SPACES = b" "


@dataclass(frozen=True)
class Rows:
    """Examples of a split.

    Attributes:
        data: uint8, what the texts are slices of: ids of words, or bytes.
        first: int64 ``[R, P]``, where each of a row's P texts begins.
        behind: int64 ``[R, P]``, where it ends.
        labels: int64 ``[R]``, classes.
    """

    data: NDArray[np.uint8]
    first: NDArray[np.int64]
    behind: NDArray[np.int64]
    labels: NDArray[np.int64]


def find_format(folder: Path) -> str:
    """Return the format of a folder: ``listops`` or ``retrieval``.

    Raises:
        ValueError: if it has the files of neither, of both, or one split alone.
    """
    known = [name for names in FILES.values() for name in names.values()]
    there = {
        kind: [name for name in names.values() if (folder / name).is_file()]
        for kind, names in FILES.items()
    }
    formats = [kind for kind, names in there.items() if names]
    if len(formats) != 1:
        was = "both" if formats else "none of them"
        raise ValueError(
            f"data: expected either {known[0]} and {known[1]} or {known[2]} and {known[3]}, "
            f"got {was}"
        )
    missing = [name for name in FILES[formats[0]].values() if name not in there[formats[0]]]
    if missing:
        raise ValueError(f"data: {there[formats[0]][0]} is there, and {missing[0]} is missing")
    return formats[0]


def read(folder: Path, kind: str, split: str) -> Rows:
    """Read a split.

    Raises:
        ValueError: if the file cannot be read or is broken: its name and line, what was there and
            what is accepted.
    """
    path = folder / FILES[kind][split]
    try:
        rows = _read_listops(path) if kind == "listops" else _read_retrieval(path)
    except OSError as error:
        raise ValueError(f"{path.name}: cannot be read: {error.strerror}") from None
    if not len(rows.labels):
        raise ValueError(f"{path.name}: expected at least one example, got none")
    return rows


def _read_listops(path: Path) -> Rows:
    expressions, labels = [], []
    lines = _lines(path)
    _, _, header = next(lines, (0, 0, b""))
    if header != b"Source\tTarget":
        raise _broken(path, 1, "the header Source<tab>Target", header)
    for number, _, line in lines:
        columns = line.split(b"\t")
        if len(columns) != 2:
            raise _broken(path, number, "2 columns, Source and Target", line, len(columns))
        expressions.append(_words(path, number, columns[0]))
        labels.append(_label(path, number, columns[1], CLASSES["listops"]))
    edges = np.cumsum([0, *map(len, expressions)])[:, None]
    data = np.frombuffer(b"".join(expressions), np.uint8)
    return Rows(data, edges[:-1], edges[1:], np.array(labels, np.int64))


def _words(path: Path, number: int, source: bytes) -> bytes:
    """Return a byte a word of an expression, by passes over the whole: files have 10⁸ words."""
    short = source.translate(None, b"()")
    for operator, letter in _OPERATORS.items():
        short = short.replace(operator, letter)
    letters = np.frombuffer(short, np.uint8) != _SPACES[0]
    ids = short.translate(None, _SPACES)
    apart = not bool((letters[1:] & letters[:-1]).any())
    foreign = any(letter in source for letter in _OPERATORS.values())
    if ids and apart and not foreign and not ids.translate(None, _LETTERS):
        return ids.translate(_TO_IDS)
    words = source.translate(None, b"()").split(_SPACES)
    wrong = next((w for w in words if w and w.decode("latin-1") not in WORDS), source)
    raise _broken(path, number, f"words of {' '.join(WORDS)} apart by spaces", wrong)


def _read_retrieval(path: Path) -> Rows:
    first, behind, labels = [], [], []
    for number, offset, line in _lines(path):
        columns = line.split(b"\t")
        if len(columns) != len(COLUMNS):
            expected = f"{len(COLUMNS)} columns, {', '.join(COLUMNS)}"
            raise _broken(path, number, expected, line, len(columns))
        for name, column in zip(COLUMNS, columns, strict=True):
            try:
                column.decode()
            except UnicodeDecodeError:
                raise _broken(path, number, f"UTF-8 as {name}", column) from None
        for name, text in zip(COLUMNS[3:], columns[3:], strict=True):
            if not text:
                raise _broken(path, number, f"a text as {name}", text)
        labels.append(_label(path, number, columns[0], CLASSES["retrieval"]))
        second = offset + len(line) - len(columns[4])
        first.append((second - 1 - len(columns[3]), second))
        behind.append((second - 1, second + len(columns[4])))
    if not labels:
        raise ValueError(f"{path.name}: expected at least one example, got an empty file")
    data: NDArray[np.uint8] = np.memmap(path, np.uint8, mode="r")
    return Rows(data, np.array(first), np.array(behind), np.array(labels, np.int64))


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Walk a file: number of the line, where it begins, and what stands in it."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield number, offset, line.rstrip(b"\r\n")
            offset += len(line)


def _label(path: Path, number: int, text: bytes, classes: int) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if value not in range(classes):
        raise _broken(path, number, f"a label, a whole number from 0 to {classes - 1}", text)
    return int(value)


def _broken(
    path: Path, number: int, expected: str, was: bytes, columns: int | None = None
) -> ValueError:
    """Return the error of a line: file and line, what is accepted and what was there."""
    shown = repr(was[:40])[1:] + ("…" if len(was) > 40 else "")
    count = "" if columns is None else f"{columns}: "
    return ValueError(f"{path.name}, line {number}: expected {expected}, got {count}{shown}")
