"""The rows of ω: orthogonal ones, or independent ones."""

from __future__ import annotations

import torch
from torch import Tensor


def orthogonal_features(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """Draw `count` directions in blocks of `dim` orthogonal ones, as long as Gaussian vectors.

    Choromanski et al. 2021, section 3.3.

    Returns:
        ``[count, dim]``, float32, on the CPU.
    """
    blocks = []
    for start in range(0, count, dim):
        gaussian = _normal(dim, dim, generator)
        q, upper = torch.linalg.qr(gaussian)
        q = q * upper.diagonal().sign()  # uniform over rotations (Mezzadri 2007)
        blocks.append(q.T[: count - start])
    lengths = _normal(count, dim, generator).norm(dim=1)
    directions: Tensor = torch.cat(blocks) * lengths[:, None]
    return directions.to(torch.float32)


def independent_features(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """Draw `count` Gaussian vectors, each on its own; Choromanski et al. 2021, lemma 1.

    Returns:
        ``[count, dim]``, float32, on the CPU.
    """
    return _normal(count, dim, generator).to(torch.float32)


def _normal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Draw on the CPU, whatever torch's default device is: the same numbers everywhere."""
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64, device="cpu")
