"""What all tests share: seeds and threads. Torch only for the tests that use it already."""

from __future__ import annotations

import os
import signal
import sys

import pytest


def pytest_configure() -> None:
    """Give each parallel worker one thread: two that take both cores only wait for each other."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"  # read by torch when it is first imported
    # A shell's background job inherits an ignored Ctrl-C, and hands it on to every program that
    # the tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Start every test from one seed, whatever ran before it in the same process."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
