"""Write a file whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, through a file beside it, so that no reader sees half of it.

    Raises:
        OSError: if the folder is missing or cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, content: str) -> None:
    """Write `content` as UTF-8; see `write_bytes`."""
    write_bytes(path, content.encode())


def check_within(folder: Path, path: Path) -> None:
    """Check that `path` lies in `folder` when links are followed: run folders are a stranger's.

    Raises:
        OSError: if it does not, with the path.
    """
    if not path.resolve().is_relative_to(folder.resolve()):
        raise OSError(errno.ELOOP, f"a link leads out of {folder}; remove it", str(path))
