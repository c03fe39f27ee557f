"""Level ``model``: whole models around the arms, their training step, and what they must compute.

A named configuration, scaled as the case says, with an arm's backend in every layer; of an
encoder-decoder in the encoder, as where long inputs are summarised: its decoder writes a quarter
as many tokens, by exact attention. Dropout is off, since what is dropped could not be checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from attention import registry
from attention.base import Attention
from attention.problem import Cost, Mode, Problem
from models import (
    IdentityAttention,
    ModelConfig,
    TransformerModel,
    TransformerStack,
    masked_lm_loss,
    named_config,
    next_token_loss,
    sequence_to_sequence_loss,
)
from models.layers.projection import saved_ops
from results.schema import CONTEXT_MODE, IDENTITY, LSTM, Arm, Case
from suites.arms import build
from suites.arms.arm import ArmRunner
from suites.arms.build import STEPPED, Inputs, Mixer, dtype_of
from suites.parsing import parse_backend

DECODER_SHARE = 4
"""An encoder-decoder's input is so many times as long as what it writes."""

_NO_DROPOUT = {"dropout_p": 0.0, "attention_dropout_p": 0.0, "activation_dropout_p": 0.0}


def config_of(case: Case) -> ModelConfig:
    """Return the configuration of a case: as named and scaled, long enough, without dropout.

    Raises:
        ValueError: if there is none of that name, or a value is out of range.
        TypeError: if it has no such value.
    """
    named = parse_backend(case.model)
    for name in named.options:
        if name in _NO_DROPOUT:
            raise ValueError(f"{name}: what is dropped cannot be checked; accepted is 0, unset")
    config = named_config(named.name).scaled(**named.options)
    tokens = case.seq_len + (STEPPED if case.mode == "decode" else 0)
    return config.scaled(max_len=max(config.max_len, tokens), **_NO_DROPOUT)


def build_model(arm: Arm, case: Case) -> tuple[Mixer, TransformerModel]:
    """Build a model; return the first layer's mixer with it.

    Raises:
        ValueError: if the configuration or an option is out of range.
        TypeError: if there is no such option.
        UnsupportedError: if the arm cannot serve the architecture.
    """
    return model_around(arm, config_of(case), seed=case.seed, checkpointing=case.checkpointing)


def model_around(
    arm: Arm, config: ModelConfig, *, seed: int, checkpointing: bool = False
) -> tuple[Mixer, TransformerModel]:
    """Build a model of a configuration around an arm, under a seed; see `build_model`."""
    torch.manual_seed(seed)  # equal weights for all arms
    name, options = arm.name, dict(arm.options)
    if name in (IDENTITY, LSTM):
        if options:
            raise TypeError(f"{next(iter(options))}: {name} takes no option")
        name = "sdpa" if name == IDENTITY else name
    elif "seed" in registry.get(name).options():
        options.setdefault("seed", seed)
    chosen: dict[str, Any] = {"attention": name, "attention_options": options}
    if config.architecture == "encoder_decoder":
        chosen["decoder_attention"] = "sdpa"
    model = TransformerModel(config, checkpointing=checkpointing, **chosen)
    layers: list[Any] = [block.attention for block in compared_stack(model).blocks]
    if arm.name == IDENTITY:
        for layer in layers:
            layer.attention = IdentityAttention(
                num_heads=config.num_heads, head_dim=config.head_dim
            )
    return layers[0] if arm.name == LSTM else layers[0].attention, model


def compared_stack(model: TransformerModel) -> TransformerStack:
    """Return the stack whose mixers are compared: the encoder, or the only one."""
    stack = model.encoder if model.encoder is not None else model.decoder
    assert stack is not None
    return stack


def layer_case(config: ModelConfig, case: Case) -> Case:
    """Return the case with the model's heads and causality: that of a compared layer."""
    return replace(
        case,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads or config.num_heads,
        head_dim=config.head_dim,
        is_causal=config.architecture == "decoder",
    )


def unsupported_reasons(mixer: Mixer, case: Case) -> list[str]:
    """Say why a case cannot be served; empty = it can."""
    config = config_of(case)
    if case.mode == "decode" and config.architecture != "decoder":
        kind = config.architecture.replace("_", "-")
        return [f"mode: decode needs a decoder; {case.model} is an {kind}"]
    return build.unsupported_reasons(mixer, layer_case(config, case))


def draw_ids(case: Case) -> Inputs:
    """Draw the ids of a case: ``[B, N]``, and of an encoder-decoder ``[B, M]`` for the decoder."""
    config = config_of(case)
    generator = torch.Generator().manual_seed(case.seed)

    def draw(tokens: int) -> Tensor:
        shape = (case.batch, tokens)
        return torch.randint(config.vocab_size, shape, generator=generator).to(case.device)

    more = {"decode": STEPPED, "training": 1 if config.architecture == "decoder" else 0}
    more_ids = more.get(case.mode, 0)  # the last one of a decoder's training is a label alone
    if config.architecture != "encoder_decoder":
        return Inputs((draw(case.seq_len + more_ids),), None)
    return Inputs((draw(case.seq_len), draw(decoder_len(case))), None)


def decoder_len(case: Case) -> int:
    """Return how many tokens an encoder-decoder's decoder writes."""
    return max(1, case.seq_len // DECODER_SHARE)


class ModelCall(ArmRunner):
    """A call of a whole model, or a training step with its objective and AdamW.

    The learning rate is 0, so that every step does the same work on the same weights. Arguments as
    of `ArmRunner`.
    """

    def __init__(self, mixer: Mixer, module: nn.Module, inputs: Inputs, case: Case) -> None:
        super().__init__(mixer, module, inputs, case)
        self.optimizer: torch.optim.Optimizer | None = None
        if case.mode == "training":
            self.leaves = list(module.parameters())
            self.optimizer = torch.optim.AdamW(self.leaves, lr=0.0)

    def call(self) -> None:
        """Compute the output, or take a step and keep its loss."""
        if self.optimizer is None:
            self.output = self._forward()
            return
        loss = self._loss()
        loss.backward()
        self.optimizer.step()
        self.output = loss

    def _forward(self) -> Tensor:
        return self.run(*self.inputs.tensors)

    def _loss(self) -> Tensor:
        raise NotImplementedError


class WholeModel(ModelCall):
    """A model: its logits, or a training step with the objective of the architecture.

    Masked tokens, the next token, or the target.
    """

    def __init__(self, mixer: Mixer, module: TransformerModel, inputs: Inputs, case: Case) -> None:
        super().__init__(mixer, module, inputs, case)
        self.config = module.config

    def _watched(self) -> Tensor:
        """Return the token embedding: ids have no gradient, and its own comes through all."""
        weight: Tensor = self.module.tokens.weight  # type: ignore[union-attr, assignment]
        return weight

    def _loss(self) -> Tensor:
        model: Any = self.run
        ids = self.inputs.tensors
        if self.config.architecture == "encoder":
            return masked_lm_loss(
                model, *ids, vocab_size=self.config.vocab_size, mask_id=0,
                generator=torch.Generator(self.case.device).manual_seed(self.case.seed),
            )  # fmt: skip
        if self.config.architecture == "decoder":
            return next_token_loss(model, *ids)
        return sequence_to_sequence_loss(model, *ids, start_id=0)


# -- what it must compute ------------------------------------------------------------------------


def cost_of(
    mixer: Mixer, model: TransformerModel, case: Case, *, written_len: int | None = None
) -> dict[str, int] | None:
    """Return the cost of a call of a model, as the record holds it; ``None`` in mode decode.

    Products of all linear layers and of every layer's attention. The bytes are the parameters,
    read once a pass; in training also their gradients and AdamW's two moments, read and written.

    Args:
        mixer: of a compared layer.
        model: around it.
        case: of level model.
        written_len: tokens of an encoder-decoder's decoder; ``None`` = as `decoder_len`.
    """
    if case.mode == "decode" or case.mode == CONTEXT_MODE:
        return None
    config = model.config
    mode: Mode = case.mode
    passes = 1 if mode == "forward" else 3
    tokens = case.batch * case.seq_len
    problem = build.problem_of(layer_case(config, case))
    inner = mixer.cost(problem, mode)
    stack = compared_stack(model)
    layers = len(stack.blocks)
    blocks = _linear_ops(stack, tokens, tokens)
    if isinstance(mixer, Attention) and not problem.is_causal:
        key_width = problem.num_kv_heads * config.head_dim
        saved = saved_ops(mixer, config.d_model, key_width, case.seq_len)
        blocks -= layers * case.batch * saved
    pattern, executed = layers * inner.pattern_ops, layers * inner.executed_ops
    exponentials = layers * inner.exponentials
    written, again = tokens, layers * mixer.cost(problem, "forward").executed_ops
    if config.architecture == "encoder_decoder":
        assert model.decoder is not None
        written_len = decoder_len(case) if written_len is None else written_len
        written = case.batch * written_len
        blocks += _linear_ops(model.decoder, written, tokens)
        for other in _decoder_costs(model.decoder, problem, written_len, mode):
            pattern, executed = pattern + other.pattern_ops, executed + other.executed_ops
            exponentials += other.exponentials
        for other in _decoder_costs(model.decoder, problem, written_len, "forward"):
            again += other.executed_ops
    logits = sum(2 * written * m.weight.numel() for m in _linears(model.logits))
    again = again + blocks if case.checkpointing else 0
    parameters = sum(p.numel() for p in model.parameters())
    return {
        "pattern_ops": pattern + passes * (blocks + logits),
        "executed_ops": executed + passes * (blocks + logits) + again,
        "exponentials": exponentials,
        "bytes": (1 if mode == "forward" else 10) * parameters * dtype_of(case).itemsize,
    }


def _linears(module: nn.Module) -> Iterator[nn.Linear]:
    return (m for m in module.modules() if isinstance(m, nn.Linear))


def _linear_ops(stack: TransformerStack, tokens: int, memory_tokens: int) -> int:
    """Count the products of a stack's linear layers; keys of the memory are made of its tokens."""
    ops = 0
    for name, module in stack.named_modules():
        if not isinstance(module, nn.Linear) or ".call_projections." in f".{name}.":
            continue
        of_memory = ".cross_attention." in f".{name}" and name.endswith(("k_proj", "v_proj"))
        ops += 2 * (memory_tokens if of_memory else tokens) * module.weight.numel()
    return ops


def _decoder_costs(
    decoder: TransformerStack, problem: Problem, written_len: int, mode: Mode
) -> Iterator[Cost]:
    """Walk the attentions of an encoder-decoder's decoder: to itself, and to the encoder."""
    fields = {**asdict(problem), "seq_len": written_len}
    to_itself = Problem(**{**fields, "key_len": fields["seq_len"], "is_causal": True})
    for block in decoder.blocks:
        layers: Any = block
        yield layers.attention.attention.cost(to_itself, mode)
        yield layers.cross_attention.attention.cost(Problem(**fields), mode)
