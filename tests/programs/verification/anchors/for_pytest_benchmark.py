"""Tests for pytest-benchmark: one process, its default rounds."""

from __future__ import annotations

from typing import Any

import pytest

from verification.anchors.functions import asked, function_of

BACKENDS, LENGTHS = asked()


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_forward(benchmark: Any, backend: str, length: int) -> None:
    benchmark(function_of(backend, length))
