"""A script for pyperf: its default processes, each with its default values."""

from __future__ import annotations

import pyperf

from verification.anchors.functions import asked, function_of


def call(backend: str, length: int) -> None:
    """Call; what is built once is built in the warm-up."""
    function_of(backend, length)()


if __name__ == "__main__":
    runner = pyperf.Runner()
    backends, lengths = asked()
    for backend in backends:
        for length in lengths:
            runner.bench_func(f"{backend} {length}", call, backend, length)
