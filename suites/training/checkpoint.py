"""What a training keeps on the disk: signed, synced, and read only if it is whole and its own."""

from __future__ import annotations

import contextlib
import os
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from suites.measure.process import large_files


def keep(file: Path, content: Mapping[str, Any], *, signature: str) -> None:
    """Write a file, or leave the one that was there.

    Args:
        file: its folder is made.
        content: tensors and plain values.
        signature: what a reader must agree on.

    Raises:
        OSError: if it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    try:
        with large_files(), partial.open("wb") as opened:
            torch.save({"signature": signature, **content}, opened)
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):  # what is left of it takes room that others need
            partial.unlink(missing_ok=True)
        # No path: where a run lies is no part of its records.
        message = f"the checkpoint {file.name} cannot be kept: {error.strerror}"
        raise OSError(error.errno, message) from error


def read(
    file: Path,
    *,
    signature: str,
    device: torch.device | str = "cpu",
    tell: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any] | None:
    """Read what `keep` wrote; ``None`` if there is none of this signature.

    To train anew costs time alone: so what cannot be read, or is of another training, is as if it
    were not there; that is said on stderr and to `tell`.
    """
    if not file.exists():
        return None
    try:
        with zipfile.ZipFile(file) as archive:  # torch compares no checksums
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(damaged)
        content = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # torch's reader has many types for what is no file of its
        why = f"cannot be read ({type(error).__name__})"
    else:
        if isinstance(content, dict) and content.get("signature") == signature:
            return content
        why = "is of another training"
    message = f"the checkpoint {file.name} {why}: training starts again"
    sys.stderr.write(f"{message}\n")
    tell(message)
    return None
