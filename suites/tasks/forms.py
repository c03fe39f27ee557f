"""What a model may see of a sequence. No torch: the options of a sweep name it too."""

from __future__ import annotations

from typing import Literal, get_args

Form = Literal["causal", "bidirectional"]

FORMS: tuple[str, ...] = get_args(Form)
"""Causal: what stands before alone; bidirectional: all of it."""
