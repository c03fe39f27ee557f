"""How the next token is chosen from logits: the likeliest, or drawn."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attention.checks import check_float, check_int


@dataclass(frozen=True)
class Choice:
    """How the next token is chosen.

    Attributes:
        temperature: divides the logits; 0 = the likeliest token.
        top_k: only so many of the likeliest tokens; ``None`` = all.
        top_p: only the likeliest tokens that together have this probability (Holtzman et al. 2020,
            arXiv 1904.09751); ``None`` = all.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        check_float("temperature", self.temperature, minimum=0.0)
        if self.top_k is not None:
            check_int("top_k", self.top_k, minimum=1)
        if self.top_p is not None and check_float("top_p", self.top_p, above=0.0) > 1.0:
            raise ValueError(f"top_p: expected at most 1, got {self.top_p}")
        if not self.temperature:
            for name in ("top_k", "top_p"):
                if getattr(self, name) is not None:
                    raise ValueError(
                        f"{name}: the likeliest token is taken at temperature 0; "
                        f"got {getattr(self, name)}"
                    )

    def next_token(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Choose from logits ``[B, V]``: int64 ``[B]``."""
        if not self.temperature:
            return logits.argmax(dim=-1)
        ordered, ids = (logits.float() / self.temperature).sort(dim=-1, descending=True)
        if self.top_k is not None:
            ordered[:, self.top_k :] = -torch.inf
        weights = ordered.softmax(dim=-1)
        if self.top_p is not None:
            before = weights.cumsum(dim=-1) - weights  # of the likelier ones
            weights = weights.masked_fill(before >= self.top_p, 0.0)
        picked = torch.multinomial(weights, 1, generator=generator)
        return ids.gather(1, picked)[:, 0]
