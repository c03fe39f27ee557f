"""Name files by their content: a case says what was read, never where it lay.

The driver turns a path into ``sha256-`` and twelve hex digits; a case, a record and a resumed run
know that name alone, and the process that measures is told beside the case where the content is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PREFIX = "sha256-"
DIGITS = 12
HF_PREFIX = "hf-"
"""Of the names of models that a configuration of transformers is of."""
HF_DIGITS = 6
_SIZES = (
    ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    ("hidden_size", "n_embd", "d_model", "dim", "emb_dim"),
)
_PARTS = ("text_config", "vision_config", "audio_config")
_TYPE = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{{DIGITS}}}")


def content_name(digest: str) -> str:
    """Return the name of the content with this SHA-256, in hex."""
    return f"{PREFIX}{digest[:DIGITS]}"


def is_content_name(text: str) -> bool:
    """Whether `text` has the form of a content's name."""
    return _NAME.fullmatch(text) is not None


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hex, read in pieces.

    Raises:
        ValueError: if it is not a file, or cannot be read.
    """
    if not path.is_file():
        was = "a folder" if path.is_dir() else "nothing there"
        raise ValueError(f"{path.name or path}: expected a file, got {was}")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path.name}: cannot be read: {error.strerror}") from None


def folder_digest(path: Path) -> str:
    """Return one SHA-256 for the names and contents of a folder's ``*.tsv`` files, in hex.

    Each file, by name, is a line: its own digest, a space and its name. Other files do not count.

    Raises:
        ValueError: if it is not a folder, has no such file, or one cannot be read.
    """
    if not path.is_dir():
        was = "a file" if path.exists() else "nothing there"
        raise ValueError(f"{path.name or path}: expected a folder with .tsv files, got {was}")
    found = sorted((p for p in path.glob("*.tsv") if p.is_file()), key=lambda p: p.name)
    if not found:
        raise ValueError(f"{path.name or path}: expected .tsv files in this folder, got none")
    whole = hashlib.sha256()
    for file in found:
        whole.update(f"{file_digest(file)} {file.name}\n".encode())
    return whole.hexdigest()


def corpus_name(path: Path) -> str:
    """Return the content's name of a corpus: any file that is not empty.

    Raises:
        ValueError: if it is empty or not a file, or cannot be read.
    """
    digest = file_digest(path)
    if path.stat().st_size == 0:
        raise ValueError(f"{path.name}: expected text to learn, got an empty file")
    return content_name(digest)


def folder_name(path: Path) -> str:
    """Return the content's name of a folder with ``.tsv`` files; errors as `folder_digest`."""
    return content_name(folder_digest(path))


def hf_config_name(path: Path) -> str:
    """Return what a model is called that a configuration of transformers is of.

    ``hf-gpt2-12x768-1a2b3c`` has its type, layers and width where the file says them, and the
    first digits of the file's SHA-256; ``hf-gemma3-text-26x1152-1a2b3c`` is the text model of a
    file that describes others too.

    Raises:
        ValueError: if it is none, or cannot be read.
    """
    digest = file_digest(path)
    found = read_hf_config(path)
    text = found.get("text_config")
    sizes = [_size(text if isinstance(text, dict) else found, names) for names in _SIZES]
    of_several = any(isinstance(found.get(name), dict) for name in _PARTS)
    parts = [
        f"{HF_PREFIX}{found['model_type']}", *(["text"] if of_several else []),
        *(["x".join(map(str, sizes))] if all(sizes) else []), digest[:HF_DIGITS],
    ]  # fmt: skip
    return "-".join(parts)


def _size(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    """Return the first of some values that is a size, 0 if there is none."""
    values = (config.get(name) for name in names)
    return next((v for v in values if type(v) is int and 0 < v < 10**6), 0)


def read_hf_config(path: Path) -> dict[str, Any]:
    """Read a configuration of transformers, a ``config.json``.

    Raises:
        ValueError: if it is no JSON object with a ``model_type``.
    """
    found: Any
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path.name}: expected a configuration in JSON: {error}") from None
    kind = found.get("model_type") if isinstance(found, dict) else None
    if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
        raise ValueError(
            f"{path.name}: expected a configuration of transformers, a JSON object with a "
            f"model_type; got {'one without' if isinstance(found, dict) else type(found).__name__}"
        )
    config: dict[str, Any] = found
    return config


def find(option: str, name: str, files: Mapping[str, Path]) -> Path:
    """Return where the content called `name` lies.

    Args:
        option: whose value the name is, for the message.
        name: ``sha256-`` and twelve hex digits.
        files: content's name to path.

    Raises:
        ValueError: if `name` has another form, or its content was not given.
    """
    if not is_content_name(name):
        raise ValueError(f"{option}: expected {PREFIX} and {DIGITS} hex digits, got {name!r}")
    if name not in files:
        given = ", ".join(sorted(files)) or "none"
        raise ValueError(
            f"{option}: the content of {name} was not given with this command; given: {given}"
        )
    return Path(files[name])


def check_unchanged(option: str, name: str, digest: str, path: Path) -> None:
    """Check that what lies at `path` still is the content called `name`.

    Raises:
        ValueError: if its digest is another one.
    """
    if content_name(digest) != name:
        raise ValueError(
            f"{option}: {path.name} has changed: expected the content of {name}, "
            f"got {content_name(digest)}; what a case reads must stay as it was"
        )
