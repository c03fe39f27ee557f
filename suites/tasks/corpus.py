"""Text to learn: the standard library's sources of this Python, or any file, as raw bytes.

The standard library is on every machine, and large enough that a small model cannot know it by
heart: about 7.5 MB of code and prose. It differs between versions of Python, so a record carries
the version and the hash of the whole. Text given as a file is the same everywhere.

What is held out, structurally apart from what is trained on:

- of the standard library whole files, those whose relative name has a SHA-256 (first four bytes,
  as a fraction of 2³²) below 5 %; a file that is an exact copy of an earlier one counts once;
- of a file its last 5 % (of enwik8 the last 5 000 000 bytes, as is usual), at most 8 MiB.

A compressor's figures stand beside a model's: zlib at level 9 and xz at preset 6 (dictionary of
8 MiB), bits of the compressed test split by its bytes. They see the test split alone, from its
first byte to its last; a model has seen the train split, but looks back one window at most.
"""

from __future__ import annotations

import hashlib
import lzma
import platform
import sys
import sysconfig
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from suites.content_names import check_unchanged, find

STDLIB = "stdlib"
TEST_SHARE = 0.05
LARGEST_TEST = 2**23
"""Bytes of a file's test split: beyond it xz would take longer than a small training."""

LEFT_OUT = frozenset(
    {
        # Tables that a program wrote.
        "encodings", "pydoc_data",
        # Parts that many installations lack: the corpus should hang on the version alone.
        "distutils", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtle", "turtledemo",
    }
)  # fmt: skip
TESTS = frozenset({"test", "tests", "idle_test"})


@dataclass(frozen=True)
class Corpus:
    """A text in two splits that share no file, or no segment of the one file.

    Attributes:
        name: ``stdlib`` or the content's name of a file.
        sha256: of the whole, in hex: the files in the order of their names, one after another.
        train: uint8 ``[bytes]``, read only.
        test: likewise.
        python: version whose library it is; "" of a file.
    """

    name: str
    sha256: str
    train: NDArray[np.uint8]
    test: NDArray[np.uint8]
    python: str = ""

    @cached_property
    def compressed(self) -> dict[str, float]:
        """Bits a byte of the test split alone: zlib at level 9, xz at preset 6."""
        text, bits = self.test.tobytes(), 8 / max(len(self.test), 1)
        return {
            "zlib": len(zlib.compress(text, 9)) * bits,
            "xz": len(lzma.compress(text, preset=6)) * bits,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of the corpus."""
        return {
            "corpus": self.name,
            "sha256": self.sha256,
            "bytes": len(self.train) + len(self.test),
            "test_bytes": len(self.test),
            **self.compressed,
            **({"python": self.python} if self.python else {}),
        }


def load(name: str, files: Mapping[str, Path] | None = None) -> Corpus:
    """Return a corpus by name; each is read once a process.

    Args:
        name: ``stdlib``, or the content's name of a file (`suites.content_names`).
        files: content's name to path.

    Raises:
        ValueError: if the name is unknown, its file was not given, cannot be read, is empty or
            has another content by now, or this Python has no sources.
    """
    if name == STDLIB:
        return _stdlib()
    if not name.startswith("sha256-"):
        raise ValueError(f"corpus: expected {STDLIB} or the hash name of a file, got {name!r}")
    return _file(name, find("corpus", name, files or {}))


@cache
def _stdlib() -> Corpus:
    return from_folder(
        Path(sysconfig.get_paths()["stdlib"]), STDLIB, python=platform.python_version()
    )


def from_folder(folder: Path, name: str, *, python: str = "") -> Corpus:
    """Return the corpus of a standard library's folder.

    Args:
        folder: where the modules are.
        name: of the corpus.
        python: version whose library it is.

    Raises:
        ValueError: if there are no sources in it, or none for one of the splits.
    """
    whole, seen = hashlib.sha256(), set()
    parts: dict[bool, list[bytes]] = {True: [], False: []}
    for relative, path in sorted(_sources(folder).items()):
        text = path.read_bytes()
        digest = hashlib.sha256(text).digest()
        if text and digest not in seen:
            seen.add(digest)
            whole.update(text)
            parts[held_out(relative)].append(text)
    if not (parts[True] and parts[False]):
        raise ValueError(
            f"corpus: {name} needs the sources (.py) of Python's standard library; this Python "
            f"has {len(seen)} of them: give a file of your own"
        )
    train, test = (np.frombuffer(b"".join(parts[held]), np.uint8) for held in (False, True))
    return Corpus(name, whole.hexdigest(), train, test, python)


def held_out(relative: str) -> bool:
    """Whether a file is of the test split, by its relative name (``json/decoder.py``)."""
    first = hashlib.sha256(relative.encode()).digest()[:4]
    return int.from_bytes(first, "big") < TEST_SHARE * 2**32


def _sources(folder: Path) -> dict[str, Path]:
    """Map relative names, as POSIX writes them, to the library's source files."""
    sources = {}
    for top in folder.iterdir() if folder.is_dir() else ():
        module = top.name.removesuffix(".py")
        # What others have put there (site-packages, a distribution's own) is no module of Python.
        if module not in sys.stdlib_module_names or module in LEFT_OUT:
            continue
        for path in top.rglob("*.py") if top.is_dir() else (top,):
            relative = path.relative_to(folder)
            if path.suffix == ".py" and path.is_file() and not TESTS & set(relative.parts):
                sources[relative.as_posix()] = path
    return sources


@cache
def _file(name: str, path: Path) -> Corpus:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ValueError(f"corpus: {path.name} cannot be read: {error.strerror}") from None
    digest = hashlib.sha256(text).hexdigest()
    check_unchanged("corpus", name, digest, path)
    if not text:
        raise ValueError(f"corpus: {path.name} is empty; expected text to learn")
    whole = np.frombuffer(text, np.uint8)
    held = min(int(len(whole) * TEST_SHARE), LARGEST_TEST)
    return Corpus(name, digest, whole[: len(whole) - held], whole[len(whole) - held :])
