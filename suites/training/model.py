"""The model of a training: the shared block around an arm, drawn so that it learns from the start.

The published shapes draw embeddings with deviation 0.02 and tie them to the output, for training
on billions of tokens. On a small task that leaves a plateau of thousands of steps: tokens are lost
beside sinusoidal positions of amplitude 1, and tied logits cannot grow. So here tokens have
deviation 1, as torch draws an embedding, and the output a matrix of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from models import ModelConfig, TransformerModel
from results.schema import Arm, Case
from suites.arms.build import Mixer
from suites.arms.model import model_around
from suites.parsing import parse_backend
from suites.tasks.base import Task

SHAPE: dict[str, Any] = {
    "d_model": 64, "num_layers": 3, "num_heads": 2, "positions": "rotary", "tied": False,
}  # fmt: skip
"""Where a case's ``model`` says nothing else; the feed-forward layer is four times as wide."""

FEED_FORWARD_FACTOR = 4

_EXACT = Arm("sdpa")

_FROM_TASK = ("architecture", "vocab_size", "max_len")
_NO_DROPOUT = ("dropout_p", "attention_dropout_p", "activation_dropout_p")


def config_for(text: str, task: Task) -> ModelConfig:
    """Return the configuration that a case's ``model`` writes, for a task.

    Args:
        text: ``decoder:d_model=128,num_layers=4``; the name is the task's architecture.
        task: gives vocabulary and length.

    Raises:
        ValueError: if the architecture is not the task's, or a value is out of range.
        TypeError: if there is no such value, or the task gives it.
    """
    named = parse_backend(text)
    if named.name != task.architecture:
        raise ValueError(
            f"model: {task.name} in its {task.form} form asks a model of architecture "
            f"{task.architecture}; got {named.name}"
        )
    for name in named.options:
        if name in _FROM_TASK:
            raise TypeError(f"{name}: the task gives it; got {named.options[name]!r}")
        if name in _NO_DROPOUT:
            raise ValueError(f"{name}: not accepted, as a training must resume exactly")
    shape = {**SHAPE, **named.options}
    shape.setdefault("d_ff", FEED_FORWARD_FACTOR * shape["d_model"])
    small: Any = ModelConfig(
        task.architecture, vocab_size=task.vocab_size, max_len=task.seq_len,
        d_model=1, num_layers=1, num_heads=1, d_ff=1,
    )  # fmt: skip
    config: ModelConfig = small.scaled(**shape)
    return config


def build(arm: Arm, case: Case, task: Task) -> tuple[Mixer, TransformerModel]:
    """Build the model of a training on the CPU; return the first compared layer's mixer with it.

    All arms of one seed begin with equal weights in all that they share: those around exact
    attention. An arm that draws weights of its own shifts the stream of what is drawn behind them.

    Raises:
        ValueError, TypeError: as `config_for`, and for an arm's options.
        UnsupportedError: if the arm cannot serve the task's form.
    """
    config = config_for(case.model, task)
    mixer, model = draw_model(arm, config, case.seed)
    if arm.name != _EXACT.name and not model.tokens.weight.is_meta:
        weights = dict(model.named_parameters())
        with torch.no_grad():
            for name, weight in draw_model(_EXACT, config, case.seed)[1].named_parameters():
                if name in weights:
                    weights[name].copy_(weight)
    return mixer, model


def draw_model(arm: Arm, config: ModelConfig, seed: int) -> tuple[Mixer, TransformerModel]:
    """Draw a model of a configuration, its embeddings as a training wants them."""
    mixer, model = model_around(arm, config, seed=seed)
    scale = config.d_model**0.5 if config.positions == "sinusoidal" else 1.0
    nn.init.normal_(model.tokens.weight, std=1.0 / scale)
    if config.tied:  # logits of deviation 1, whatever the width
        nn.init.normal_(model.tokens.weight, std=config.d_model**-0.5)
    return mixer, model
