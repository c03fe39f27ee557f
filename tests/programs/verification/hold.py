"""Memory of known size: every page of it is touched."""

from __future__ import annotations

import torch
from torch import Tensor

MIB = 2**20


def filled(mebibytes: int, device: str = "cpu") -> Tensor:
    """Return a tensor of so many MiB."""
    return torch.ones(mebibytes * MIB, dtype=torch.int8, device=device)
