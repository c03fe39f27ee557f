"""Write to a terminal, a pipe or a file that may go away meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TextIO

GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENOSPC, errno.EDQUOT, errno.ESTALE)
"""A pipe without a reader, a closed terminal, a closed descriptor, a full disk, a lost folder."""


class Stream:
    """A text stream; once it is gone, what is written to it is dropped.

    Args:
        stream: ``None`` = gone from the start, as Python has it where a descriptor was closed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def is_terminal(self) -> bool:
        """Say whether it is a terminal."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:  # closed
            return False

    def write(self, text: str) -> None:
        """Write and flush.

        Raises:
            OSError: if it fails for another reason than that the stream is gone.
        """
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except BlockingIOError:  # a terminal that another program made so: this text is lost
            pass
        except UnicodeEncodeError as error:
            self.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        except ValueError:  # closed
            self._stream = None
        except OSError as error:
            if error.errno not in GONE:
                raise
            self._drop()

    def flush(self) -> None:
        """Nothing waits: `write` has flushed."""

    def _drop(self) -> None:
        """Point the descriptor at nothing: else what is buffered fails again at the very end."""
        assert self._stream is not None
        with contextlib.suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)
        self._stream = None


def open_standard() -> None:
    """Fill closed standard descriptors: a file of ours must not get one of their numbers."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
