"""From an arm and its case to a module, its inputs, and what its surroundings cost.

What is compared is a *mixer*: a backend or torch's LSTM, alone or inside a layer or a block. Whole
models are built in `suites.arms.model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attention import registry
from attention.base import Attention
from attention.packed import packed_cost
from attention.problem import Problem
from models import IdentityAttention, LSTMLayer, MultiheadAttention, TransformerBlock
from models.layers.projection import saved_ops
from results.schema import CONTEXT_MODE, FULL_PRECISION, IDENTITY, LSTM, Arm, Case
from suites.arms import documents

FEED_FORWARD_FACTOR = 4
"""Width of a block's feed-forward layer, in units of d_model."""

STEPPED = 2
"""Tokens after the context in mode decode: one that goes before, and the one that is timed."""

Mixer = Attention | LSTMLayer
"""What an arm is about: where tokens see each other."""


@dataclass(frozen=True)
class Inputs:
    """What every arm of a case is called with, drawn once: normal, scale 1, under the seed.

    Attributes:
        tensors: q, k and v at level attention; x ``[B, N, d_model]`` at layer and block; ids
            ``[B, N]``, and a decoder's, at level model. In mode decode there are `STEPPED` more.
        output_grad: what a backward pass starts from; ``None`` unless there is one.
        asks: what each arm is asked beside them: packed documents, or the mask of padded ones.
    """

    tensors: tuple[Tensor, ...]
    output_grad: Tensor | None
    asks: Mapping[str, Any] = field(default_factory=dict)


def dtype_of(case: Case) -> torch.dtype:
    """Return the torch dtype of a case."""
    dtype = getattr(torch, case.dtype)
    assert isinstance(dtype, torch.dtype)
    return dtype


def problem_of(case: Case) -> Problem:
    """Return the call of the backend that a case makes, at every level."""
    problem = Problem(
        batch=case.batch,
        num_heads=case.num_heads,
        head_dim=case.head_dim,
        seq_len=case.seq_len,
        key_len=case.key_len,
        num_kv_heads=case.num_kv_heads,
        dtype=dtype_of(case),
        device=case.device,
        is_causal=case.is_causal,
    )
    return documents.of_padded(problem, case)


def check_case(case: Case) -> None:
    """Check what no single backend can: that the case's fields fit one another.

    Raises:
        ValueError: naming the field, what came and what is accepted.
    """
    for name in ("batch", "seq_len", "key_len"):
        if getattr(case, name) < 1:
            raise ValueError(f"{name}: expected at least 1, got {getattr(case, name)}")
    _check_shape(case)
    if case.mode == CONTEXT_MODE or case.ranks != 1:
        raise ValueError(
            f"mode: a case of kind {case.kind} runs in one process; got {case.mode} over "
            f"{case.ranks} rank{'s'[: case.ranks != 1]}"
        )
    if case.threads < 1:
        raise ValueError(f"threads: expected at least 1, got {case.threads}")
    if case.matmul_precision != FULL_PRECISION and case.dtype != "float32":
        raise ValueError(
            f"matmul_precision: for {case.dtype} only {FULL_PRECISION} is accepted; "
            f"got {case.matmul_precision}"
        )
    if case.checkpointing and (case.level, case.mode) != ("model", "training"):
        raise ValueError(
            f"checkpointing: only at level model, mode training; got level {case.level}, mode "
            f"{case.mode}"
        )
    documents.check_documents(case)
    if case.mode == "decode" and case.compile:
        raise ValueError("compile: not available in mode decode; expected off, got on")
    if case.mode == "decode" and case.level != "model" and not case.is_causal:
        raise ValueError("is_causal: mode decode is causal; expected true, got false")
    if case.level != "attention" and case.key_len != case.seq_len:
        raise ValueError(
            f"key_len: level {case.level} attends within one sequence of {case.seq_len} tokens; "
            f"got {case.key_len}"
        )
    if case.level == "attention":
        for arm in case.arms:
            if arm.name == IDENTITY:
                raise ValueError(
                    f"backend: {IDENTITY} is the baseline of levels layer, block and model; got "
                    "attention"
                )
            if arm.name == LSTM:
                raise ValueError(
                    f"backend: {LSTM} replaces a whole layer; expected level layer, block or "
                    "model, got attention"
                )


def refuse_inputs(case: Case) -> None:
    """Check that a case of a kind that draws its own inputs names none.

    Raises:
        ValueError: if it does.
    """
    if case.inputs:
        raise ValueError(
            f"inputs: kind {case.kind} makes its own; expected none, got {case.inputs}"
        )


def _check_shape(case: Case) -> None:
    """Check the heads: of a model they are its own."""
    shape = ("num_heads", "num_kv_heads", "head_dim")
    if case.level == "model":
        if not case.model:
            raise ValueError("model: expected a configuration at level model, got none")
        if any(getattr(case, name) for name in shape) or case.is_causal:
            raise ValueError(
                "num_heads, is_causal: a model's configuration sets them; expected 0 and false"
            )
        return
    if case.model:
        raise ValueError(f"model: only at level model; got {case.model} at level {case.level}")
    for name in shape:
        if getattr(case, name) < 1:
            raise ValueError(f"{name}: expected at least 1, got {getattr(case, name)}")
    if case.num_heads % case.num_kv_heads:
        raise ValueError(
            f"num_kv_heads: expected a divisor of the {case.num_heads} heads, "
            f"got {case.num_kv_heads}"
        )


def build_attention(arm: Arm, case: Case) -> Attention:
    """Build an arm's backend with its options and what the case fixes.

    Raises:
        ValueError: if there is no such backend or an option is out of range.
        TypeError: if an option is unknown or of the wrong type.
    """
    fixed: dict[str, Any] = {"num_heads": case.num_heads, "head_dim": case.head_dim}
    for name in fixed:
        if name in arm.options:
            raise TypeError(f"{name}: a property of the case, not an option of {arm.name}")
    if arm.name == IDENTITY:
        if arm.options:
            raise TypeError(f"{next(iter(arm.options))}: {IDENTITY} takes no option")
        return IdentityAttention(**fixed)
    accepted = registry.get(arm.name).options()
    defaults = {"seq_len": documents.longest_of(case), "seed": case.seed}
    chosen = {name: value for name, value in defaults.items() if name in accepted}
    return registry.build(arm.name, **fixed, **{**chosen, **arm.options})


def build_mixer(arm: Arm, case: Case) -> Mixer:
    """Build an arm's backend or LSTM; errors as in `build_attention`."""
    if arm.name != LSTM:
        return build_attention(arm, case)
    if arm.options:
        raise TypeError(f"{next(iter(arm.options))}: {LSTM} takes no option")
    return LSTMLayer(d_model=case.num_heads * case.head_dim, is_causal=case.is_causal)


def unsupported_reasons(mixer: Mixer, case: Case) -> list[str]:
    """Say why a backend cannot serve a case; empty = it can."""
    if case.mode == "decode" and (reason := no_state(mixer)):
        return [reason]
    if not (case.is_causal or mixer.supports.bidirectional):
        return [f"is_causal: {mixer.name} serves causal only: --causal"]
    reasons = mixer.unsupported_reasons(documents.of_longest(problem_of(case), case))
    if case.mode == "training" and mixer.dropout_p:
        reasons.append(
            f"dropout_p: expected 0, as outputs are checked against the formula without dropout; "
            f"got {mixer.dropout_p}"
        )
    return reasons


def no_state(mixer: Mixer) -> str:
    """Say why a mixer decodes with no state; "" = it has one."""
    if mixer.supports.state:
        return ""
    return f"state: {mixer.name} has no cache or state to decode with{mixer.why_not('state')}"


def module_is_mixer(mixer: Mixer, case: Case) -> bool:
    """Say whether the case's level has nothing around the mixer: an LSTM is a whole layer."""
    return case.level == "attention" or (case.level == "layer" and isinstance(mixer, LSTMLayer))


def build_module(mixer: Mixer, case: Case) -> nn.Module:
    """Build what the case's level measures around a mixer."""
    torch.manual_seed(case.seed)  # equal projections for all arms
    d_model = case.num_heads * case.head_dim
    module: nn.Module
    if module_is_mixer(mixer, case):
        module = mixer
    elif case.level == "layer":
        assert isinstance(mixer, Attention)
        module = MultiheadAttention(
            d_model=d_model,
            num_heads=case.num_heads,
            num_kv_heads=case.num_kv_heads,
            attention=mixer,
        )
    else:
        module = TransformerBlock(
            d_model=d_model,
            num_heads=case.num_heads,
            num_kv_heads=case.num_kv_heads,
            d_ff=FEED_FORWARD_FACTOR * d_model,
            attention=mixer,
        )
    return module


def draw_inputs(case: Case) -> Inputs:
    """Draw the inputs of a case; in mode training they require gradients."""
    generator = torch.Generator().manual_seed(case.seed)
    training = case.mode == "training"
    more = STEPPED if case.mode == "decode" else 0

    def draw(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator, dtype=torch.float32)
        return drawn.to(case.device, dtype_of(case))

    query = (case.batch, case.num_heads, case.seq_len + more, case.head_dim)
    key = (case.batch, case.num_kv_heads, case.key_len + more, case.head_dim)
    hidden = (case.batch, case.seq_len + more, case.num_heads * case.head_dim)
    shapes = (query, key, key) if case.level == "attention" else (hidden,)
    every = [draw(*shape) for shape in (*shapes, *shapes[:training])]
    drawn, asks = documents.as_documents(case, every)
    tensors = tuple(x.requires_grad_(training) for x in drawn[: len(shapes)])
    return Inputs(tensors, drawn[-1] if training else None, asks)


def expected_exponents(mixer: Mixer, case: Case) -> dict[str, float]:
    """Return how time and memory are declared to grow in the case's mode."""
    if case.mode == "decode":
        return {"time": mixer.decode_time_exponent, "memory": mixer.decode_memory_exponent}
    return {"time": mixer.time_exponent, "memory": mixer.memory_exponent}


def cost_of(mixer: Mixer, case: Case) -> dict[str, int] | None:
    """Return the cost of a call at the case's level, as the record holds it.

    ``None`` in mode decode, whose steps no backend counts, over ranks, and of a plain function.
    At level layer and block the operations of the projections and of the feed-forward layer come
    on top; the bytes are then x, the output and those weights, q, k and v being intermediate.
    """
    if case.mode == "decode" or case.mode == CONTEXT_MODE or not mixer.has_reference:
        return None
    packed, problem = documents.packed_of(case), problem_of(case)
    if packed is not None and not case.padded and isinstance(mixer, Attention):
        return asdict(packed_cost(mixer, packed, problem, case.mode))
    inner = mixer.cost(problem, case.mode)
    if module_is_mixer(mixer, case):
        return asdict(inner)
    width, key_width = case.num_heads * case.head_dim, case.num_kv_heads * case.head_dim
    weights, saved = 0, 0
    if isinstance(mixer, Attention):
        weights = 2 * width * width + 2 * width * key_width
        saved = 0 if case.is_causal else saved_ops(mixer, width, key_width, case.key_len)
    if case.level == "block":
        weights += 2 * FEED_FORWARD_FACTOR * width * width
    tokens = case.batch * case.seq_len
    passes = 1 if case.mode == "forward" else 3
    ops = (2 * tokens * weights - case.batch * saved) * passes
    # Training reads x, the weights and the output's gradient again, and writes two gradients.
    activations = 2 if case.mode == "forward" else 5
    elements = activations * tokens * width + passes * weights
    return {
        "pattern_ops": inner.pattern_ops + ops,
        "executed_ops": inner.executed_ops + ops,
        "exponentials": inner.exponentials,
        "bytes": elements * dtype_of(case).itemsize,
    }
