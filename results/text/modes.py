"""What each mode is called and measured by: one place for its words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ModeWords:
    """How a mode is spoken of.

    Attributes:
        heading: of its paragraph.
        call: what a latency is of.
        length: what a length is: an axis's label, with its unit.
        place: what stands before a length in a sentence.
        memory: the metric of its memory.
        memory_title: what that is.
        memory_sentence: the same in a sentence, after an amount.
    """

    heading: str
    call: str
    length: str
    place: str
    memory: str
    memory_title: str
    memory_sentence: str


_CALL = ("sequence length (tokens)", "At", "peak_memory", "Peak memory above the inputs",
         "above its inputs")  # fmt: skip

WORDS: Mapping[str, ModeWords] = {
    "forward": ModeWords("Forward pass", "Time per call", *_CALL),
    "training": ModeWords("Training step", "Time per call", *_CALL),
    "decode": ModeWords(
        "Decoding", "Time per token", "context (tokens)", "After a context of",
        "state_bytes", "KV cache or recurrent state", "of KV cache or state",
    ),
    "context_parallel": ModeWords("Training step over several ranks", "Time per step", *_CALL),
}  # fmt: skip
