"""A stack of blocks: what encoders, decoders and whole models share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attention.checks import check_bool, check_int
from attention.decoding.state import DecodeState
from models.block import Memory, Norm, TransformerBlock
from models.feedforward import Activation
from models.norm import EPSILON, Normalization, make_norm
from models.positional import RotaryPositions
from models.token_mixer import layer_options


class TransformerStack(nn.Module):
    """`num_layers` blocks of the same backend, and a last norm after pre-norm blocks.

    What a backend shares between layers (Linformer's one projection for all, Wang et al. 2020,
    section 4) is made once, by `Attention.shared_options`, and given to every block. A backend
    that draws at random (an option ``seed``) gets ``seed + i`` in layer ``i`` of the model, so
    that the layers do not repeat one draw; cross-attentions count after the self-attentions.

    Args:
        num_layers: number of blocks.
        d_model: width.
        num_heads: H; divides `d_model`.
        max_len: the longest length that will be asked for, in tokens: of a backend that is built
            for a length (an option ``seq_len`` that is not given).
        attention: a registered backend's name, or ``lstm``; see `TransformerBlock`. Layers have
            states of their own, so a built backend is not accepted here.
        attention_options: its constructor arguments, for all layers.
        d_ff: see `TransformerBlock`.
        num_kv_heads: see `MultiheadAttention`.
        norm: ``pre`` or ``post``.
        activation: see `FeedForward`.
        dropout_p: see `TransformerBlock`.
        attention_dropout_p: see `TransformerBlock`.
        activation_dropout_p: see `TransformerBlock`.
        bias: see `TransformerBlock`.
        normalization: see `TransformerBlock`.
        norm_eps: see `TransformerBlock`.
        rotary: shared by all layers; see `MultiheadAttention`.
        cross_attention: a registered backend's name; see `TransformerBlock`.
        cross_attention_options: its constructor arguments, for all layers.
        cross_attention_dropout_p: see `TransformerBlock`.
        is_causal: how the stack will be called: of a layer that is built for a direction (an
            option ``is_causal`` that is not given). An attention is told at each call.
        first_layer: how many attention layers of the model come before those of this stack.
        checkpointing: whether training keeps only the input of each block and computes the rest
            again in the backward pass (Chen et al. 2016, arXiv 1604.06174): less memory, about one
            more forward pass. Numbers and random draws stay the same. An attribute too.

    Raises:
        ValueError: if an argument is out of range or the widths do not divide.
        TypeError: if an argument has the wrong type.
        UnsupportedError: if a backend declares that it cannot do what is asked.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        d_model: int,
        num_heads: int,
        max_len: int,
        attention: str = "sdpa",
        attention_options: Mapping[str, Any] | None = None,
        d_ff: int | None = None,
        num_kv_heads: int | None = None,
        norm: Norm = "pre",
        activation: Activation = "relu",
        dropout_p: float = 0.0,
        attention_dropout_p: float = 0.0,
        activation_dropout_p: float | None = None,
        bias: bool = True,
        normalization: Normalization = "layer",
        norm_eps: float = EPSILON,
        rotary: RotaryPositions | None = None,
        cross_attention: str | None = None,
        cross_attention_options: Mapping[str, Any] | None = None,
        cross_attention_dropout_p: float | None = None,
        is_causal: bool = False,
        first_layer: int = 0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_int("num_layers", num_layers, minimum=1)
        check_int("first_layer", first_layer, minimum=0)
        check_int("num_heads", num_heads, minimum=1)
        self.d_model = check_int("d_model", d_model, minimum=1)
        self.max_len = check_int("max_len", max_len, minimum=1)
        self.checkpointing = check_bool("checkpointing", checkpointing)
        self.final_norm: nn.Module = nn.Identity()
        if norm == "pre":
            self.final_norm = make_norm(normalization, d_model, eps=norm_eps, bias=bias)
        each_layer = partial(
            layer_options,
            num_layers=num_layers,
            d_model=d_model,
            num_heads=num_heads,
            max_len=max_len,
        )
        own = each_layer(
            "attention", attention, attention_options or {}, is_causal=is_causal,
            first_layer=first_layer,
        )  # fmt: skip
        crossing: list[dict[str, Any] | None] = [None] * num_layers
        if cross_attention is not None:
            crossing = [*each_layer(
                "cross_attention", cross_attention, cross_attention_options or {}, is_causal=False,
                first_layer=first_layer + num_layers,
            )]  # fmt: skip
        self.blocks = nn.ModuleList(
            TransformerBlock(
                d_model=d_model,
                num_heads=num_heads,
                d_ff=d_ff,
                attention=attention,
                attention_options=options,
                num_kv_heads=num_kv_heads,
                norm=norm,
                activation=activation,
                dropout_p=dropout_p,
                attention_dropout_p=attention_dropout_p,
                activation_dropout_p=activation_dropout_p,
                bias=bias,
                normalization=normalization,
                norm_eps=norm_eps,
                rotary=rotary,
                cross_attention=cross_attention,
                cross_attention_options=cross_options,
                cross_attention_dropout_p=cross_attention_dropout_p,
            )
            for options, cross_options in zip(own, crossing, strict=True)
        )

    def forward(
        self,
        x: Tensor,
        *,
        is_causal: bool = False,
        key_padding_mask: Tensor | None = None,
        memory: Memory | None = None,
        positions: Tensor | None = None,
        states: list[DecodeState] | None = None,
        **call_inputs: Tensor | None,
    ) -> Tensor:
        """Map ``[B, N, d_model]`` to ``[B, N, d_model]``.

        Args:
            x: ``[B, N, d_model]``, N at most `max_len`.
            is_causal: token ``i`` sees tokens up to ``i`` only; must be true beside states.
            key_padding_mask: bool ``[B, N]``, **True = this token takes part**.
            memory: see `TransformerBlock.forward`.
            positions: see `MultiheadAttention.forward`.
            states: of the blocks, by `init_states`.
            **call_inputs: the token masks that the backend declares, bool ``[B, N]``.

        Raises:
            ValueError: if a shape does not fit.
            TypeError: if an input is no tensor or the backend takes no input of that name.
            UnsupportedError: if the backend declares that it cannot serve the request.
        """
        every = [None] * len(self.blocks) if states is None else states
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        for block, state in zip(self.blocks, every, strict=True):
            run: Callable[..., Tensor] = block
            if again and state is None:
                run = partial(checkpoint, block, use_reentrant=False)
            x = run(
                x,
                is_causal=is_causal,
                key_padding_mask=key_padding_mask,
                memory=memory,
                positions=positions,
                state=state,
                **call_inputs,
            )
        out: Tensor = self.final_norm(x)
        return out

    def init_states(
        self,
        *,
        batch_size: int,
        max_len: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> list[DecodeState]:
        """Make the states of all blocks; see `Attention.init_state`."""
        made: list[DecodeState] = []
        for block in self.blocks:
            assert isinstance(block, TransformerBlock)
            made.append(
                block.init_state(
                    batch_size=batch_size, max_len=max_len, dtype=dtype, device=device
                )
            )
        return made
