"""A stack of blocks: what encoders, decoders and whole models share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Unpack, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attention.checks import check_bool, check_int
from attention.decoding.state import DecodeState
from models.config import ModelConfig
from models.layers.block import BlockOptions, TransformerBlock
from models.layers.pattern import Names, Options, layer_names, options_of_layers
from models.layers.token_mixer import layer_options, mixer_class, token_masks

SHAPE = (
    "num_layers", "d_model", "num_heads", "max_len", "d_ff", "num_kv_heads", "norm", "activation",
    "dropout_p", "activation_dropout_p", "bias", "normalization", "norm_eps",
)  # fmt: skip
"""Arguments of a stack that a `ModelConfig` gives under the same names."""


class TransformerStack(nn.Module):
    """`num_layers` blocks, and a last norm after pre-norm blocks.

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
        attention: a registered backend's name, or ``lstm``; see `TransformerBlock`. A list of
            names or a pattern (``"3*longformer+sdpa"``) is repeated over the layers. Layers have
            states of their own, so a built backend is not accepted here.
        attention_options: constructor arguments for all layers, or a list of them, one for each
            layer of the pattern.
        cross_attention: a registered backend's name; see `TransformerBlock`.
        cross_attention_options: its constructor arguments, for all layers.
        is_causal: how the stack will be called: of a layer that is built for a direction (an
            option ``is_causal`` that is not given). An attention is told at each call.
        first_layer: how many attention layers of the model come before those of this stack.
        checkpointing: whether training keeps only the input of each block and computes the rest
            again in the backward pass (Chen et al. 2016, arXiv 1604.06174): less memory, about one
            more forward pass. Numbers and random draws stay the same. An attribute too.
        attention_dropout_p_of_layers: dropout on the attention weights, layer by layer; ``None``
            means `attention_dropout_p` in all.
        **block: further arguments of every `TransformerBlock`.

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
        attention: Names = "sdpa",
        attention_options: Options | None = None,
        cross_attention: str | None = None,
        cross_attention_options: Mapping[str, Any] | None = None,
        is_causal: bool = False,
        first_layer: int = 0,
        checkpointing: bool = False,
        attention_dropout_p_of_layers: Sequence[float] | None = None,
        **block: Unpack[BlockOptions],
    ) -> None:
        super().__init__()
        check_int("num_layers", num_layers, minimum=1)
        check_int("first_layer", first_layer, minimum=0)
        check_int("num_heads", num_heads, minimum=1)
        self.d_model = check_int("d_model", d_model, minimum=1)
        self.max_len = check_int("max_len", max_len, minimum=1)
        self.checkpointing = check_bool("checkpointing", checkpointing)
        sizes: dict[str, Any] = {
            "num_layers": num_layers, "d_model": d_model, "num_heads": num_heads,
            "max_len": max_len,
        }  # fmt: skip
        of_layers = options_of_layers(
            "attention", attention, attention_options, is_causal=is_causal,
            first_layer=first_layer, **sizes,
        )  # fmt: skip
        weights_p = block.pop("attention_dropout_p", 0.0)
        by_layer = attention_dropout_p_of_layers or [weights_p] * num_layers
        crossing: list[dict[str, Any] | None] = [None] * num_layers
        if cross_attention is not None:
            crossing = [*layer_options(
                "cross_attention", cross_attention, cross_attention_options or {}, is_causal=False,
                first_layer=first_layer + num_layers, **sizes,
            )]  # fmt: skip
        blocks = [
            TransformerBlock(
                d_model=d_model,
                num_heads=num_heads,
                attention=name,
                attention_options=options,
                attention_dropout_p=layer_p,
                cross_attention=cross_attention,
                cross_attention_options=cross_options,
                **cast("dict[str, Any]", block),
            )
            for (name, options), layer_p, cross_options in zip(
                of_layers, by_layer, crossing, strict=True
            )
        ]
        self._masks = [token_masks(name) for name, _ in of_layers]
        self.final_norm: nn.Module = nn.Identity()
        if blocks[0].norm == "pre":
            self.final_norm = copy.deepcopy(blocks[0].feed_forward_norm)
        self.blocks = nn.ModuleList(blocks)

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        attention: Names,
        *,
        cross_attention: str | None = None,
        **others: Any,
    ) -> TransformerStack:
        """Build a stack of a model's shape; dropout on weights acts where a backend forms some.

        Args:
            config: of the model.
            attention: see the constructor.
            cross_attention: likewise.
            **others: arguments of the constructor that are not the shape's.
        """

        def weights_dropout_p(name: str, argument: str) -> float:
            forms_weights = mixer_class(name, argument).supports.dropout
            return config.attention_dropout_p if forms_weights else 0.0

        if cross_attention is not None:
            others["cross_attention_dropout_p"] = weights_dropout_p(
                cross_attention, "cross_attention"
            )
        return cls(
            attention=attention,
            cross_attention=cross_attention,
            attention_dropout_p_of_layers=[
                weights_dropout_p(name, "attention")
                for name in layer_names("attention", attention, config.num_layers)[0]
            ],
            **{name: getattr(config, name) for name in SHAPE},
            **others,
        )

    def forward(
        self,
        x: Tensor,
        *,
        states: list[DecodeState] | None = None,
        **call: Any,
    ) -> Tensor:
        """Map ``[B, N, d_model]`` to ``[B, N, d_model]``.

        Args:
            x: ``[B, N, d_model]``, N at most `max_len`.
            states: of the blocks, by `init_states`.
            **call: as of `TransformerBlock.forward`: ``key_padding_mask`` (**True = this token
                takes part**), ``memory``, ``is_causal``, ``positions`` and token masks,
                and errors too.
        """
        each_state = [None] * len(self.blocks) if states is None else states
        computes_again = self.checkpointing and self.training and torch.is_grad_enabled()
        known = set().union(*self._masks)
        for block, state, masks in zip(self.blocks, each_state, self._masks, strict=True):
            # A mask goes to the layers that take it; of one that none takes each says so.
            of_layer = {n: x for n, x in call.items() if n not in known or n in masks}
            run: Callable[..., Tensor] = block
            if computes_again and state is None:
                run = partial(checkpoint, block, use_reentrant=False)
            x = run(x, state=state, **of_layer)
        out: Tensor = self.final_norm(x)
        return out

    def init_states(self, **made_for: Any) -> list[DecodeState]:
        """Make the states of all blocks; arguments as of `Attention.init_state`."""
        return [cast("TransformerBlock", b).init_state(**made_for) for b in self.blocks]
