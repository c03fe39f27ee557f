"""The published models: what each is, and how many parameters it has."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from models.config import CONFIGS, ModelConfig
from models.transformer import TransformerModel


def count_parameters(config: ModelConfig) -> int:
    """Count the parameters of a configuration with `sdpa`; nothing is allocated."""
    with torch.device("meta"):
        return TransformerModel(config).num_parameters()


def catalogue() -> list[dict[str, Any]]:
    """Return the published shapes as plain values: name, parameters, and each value."""
    return [
        {"name": name, "parameters": count_parameters(config), **asdict(config)}
        for name, config in CONFIGS.items()
    ]
