"""Read a file of JSON lines that a stranger wrote: bounded, one fault a line, no surprises.

JSON allows more than any reader can stand: numbers beyond a float, one key twice, nesting without
end. What is refused here costs its line, which is named, and nothing else.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from results.text.clean import clean

LONGEST_LINE = 16 * 2**20
"""Bytes of one line; a record has some thousands."""

LARGEST_FILE = 2 * 2**30
"""Bytes of one file that are read."""

MOST_FAULTS = 1000
"""Lines of a file that are no JSON and are named one by one."""

DEEPEST = 64
"""Levels of objects and lists within each other; a record has ten."""

MOST_DIGITS = 19
"""Digits of a whole number."""

_CHUNK = 2**20
_LONGEST_FAULT = 200


class Line(NamedTuple):
    """One readable JSON value of a file."""

    path: Path
    number: int
    data: Any

    @property
    def place(self) -> str:
        """File and line number, as messages name them."""
        return f"{self.path}:{self.number}"


def open_regular(file: Path) -> BinaryIO | None:
    """Open a file to be read; None where there is none, or a folder, pipe or device in its place.

    Raises:
        OSError: if it is there and cannot be opened.
    """
    try:
        # Opening a pipe waits for its other end unless told otherwise.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:  # a name with a zero byte
        return None
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ELOOP):  # a socket, a link to itself
            return None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


def json_lines(source: BinaryIO, file: Path, warnings: list[str]) -> Iterator[Line]:
    """Yield the JSON values of a file's lines; a line that is none is named in `warnings`.

    Args:
        source: the open file; it is closed at the end.
        file: its name.
        warnings: is added to.

    Raises:
        OSError: if it cannot be read, with the file's name.
    """
    faults = 0
    with source:
        for number, raw in _raw_lines(source, file, warnings):
            try:
                yield Line(file, number, parse(raw))
            except (ValueError, RecursionError) as error:
                faults += 1
                if faults <= MOST_FAULTS:
                    warnings.append(f"{file}:{number}: not JSON ({short(error)}); left out")
        if faults > MOST_FAULTS:
            left = f"{faults - MOST_FAULTS:,}"
            warnings.append(f"{file}: {left} further lines are not JSON; left out")


def _raw_lines(source: BinaryIO, file: Path, warnings: list[str]) -> Iterator[tuple[int, bytes]]:
    number, left = 0, LARGEST_FILE
    try:
        while raw := source.readline(LONGEST_LINE + 1):
            number += 1
            left -= len(raw)
            is_whole = len(raw) <= LONGEST_LINE
            while not is_whole and left > 0 and not raw.endswith(b"\n"):
                raw = source.readline(_CHUNK)
                left -= len(raw)
                if not raw:
                    break
            if left < 0:
                warnings.append(
                    f"{file}:{number}: the file is larger than {LARGEST_FILE} bytes; "
                    "left out from this line on"
                )
                return
            if not is_whole:
                warnings.append(f"{file}:{number}: longer than {LONGEST_LINE} bytes; left out")
            # An editor may have put a mark there; in joined files it stands before any line.
            elif (text := raw.removeprefix(codecs.BOM_UTF8)).strip():
                yield number, text
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


def parse(raw: bytes) -> Any:
    """Return the JSON value of a line.

    Raises:
        ValueError: if it is no JSON, or holds a number beyond any float, a whole number of too
            many digits, a key twice in one object, or more levels than `DEEPEST`.
        RecursionError: if it has far more levels.
    """
    # Half a character may stand as an escape: a stranger's name, which readers show as "?".
    has_escapes = b"\\u" in raw
    try:
        data = msgspec.json.decode(_HALF.sub(rb"\\u0", raw) if has_escapes else raw)
    except msgspec.ValidationError:  # of plain JSON: a number
        raise ValueError("a number beyond any float, or of hundreds of digits") from None
    # Of a key that stands twice msgspec keeps the last: then fewer keys come out than went in.
    is_less = raw.count(b":") != msgspec.json.encode(data).count(b":")
    if has_escapes or is_less or _LONG_NUMBER in raw.translate(_DIGITS):
        data = json.loads(raw, object_pairs_hook=_object, parse_int=_whole_number)
    # As many brackets as levels are there at least: most lines need no walk.
    if raw.count(b"{") + raw.count(b"[") > DEEPEST and _levels(data) > DEEPEST:
        raise ValueError(f"more than {DEEPEST} levels of objects and lists")
    return data


_HALF = re.compile(rb"\\u[dD]")
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * (MOST_DIGITS + 1)


def _levels(data: Any) -> int:
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else None
    return 0 if inner is None else 1 + max(map(_levels, inner), default=0)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:50]!r} stands twice in one object")
    return made


def _whole_number(text: str) -> int:
    if (digits := len(text.lstrip("-"))) > MOST_DIGITS:
        raise ValueError(f"a whole number of {digits} digits; expected {MOST_DIGITS} at most")
    return int(text)


def short(error: BaseException) -> str:
    """Return what an error says, on one line of a bounded length."""
    text = clean(str(error)[: 2 * _LONGEST_FAULT]) or type(error).__name__
    return text if len(text) <= _LONGEST_FAULT else f"{text[: _LONGEST_FAULT - 1]}…"
