"""Whole models: embeddings, stacks of the one block, logits.

Encoder-only, decoder-only and encoder-decoder (Vaswani et al. 2017, arXiv 1706.03762) from a
`ModelConfig`, around any backend that can serve them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from attention.base import UnsupportedError
from attention.checks import check_bool
from models.config import ModelConfig
from models.embeddings import DrawnEmbedding, Embeddings, Logits, check_ids
from models.generation import Generated, generate
from models.layers.block import Memory
from models.layers.pattern import Names, Options, check_layers_serve
from models.layers.positional import RotaryPositions, places
from models.stack import TransformerStack
from models.state import ModelState, new_state
from models.swap import swapped


class TransformerModel(nn.Module):
    """A whole model.

    Args:
        config: its shape.
        attention: backend of the self-attention, or ``lstm`` in its place: of the encoder, or of
            the only stack. A list or a pattern mixes layers, see `TransformerStack`.
        attention_options: see `TransformerStack`.
        decoder_attention: of an encoder-decoder's decoder; ``None`` = as `attention`.
        decoder_attention_options: its arguments; ``None`` = `attention_options`, if the backend is
            the same.
        cross_attention: of an encoder-decoder.
        cross_attention_options: its arguments.
        checkpointing: of all stacks, see `TransformerStack`; can be set later too.

    Dropout on the attention weights acts where the backend forms weights.

    Raises:
        ValueError: if an argument has no use in this architecture or is out of range.
        TypeError: if an argument has the wrong type.
        UnsupportedError: if a backend cannot do what the architecture asks of it: be causal,
            attend to another sequence, or leave padding out.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        attention: Names = "sdpa",
        attention_options: Options | None = None,
        decoder_attention: Names | None = None,
        decoder_attention_options: Options | None = None,
        cross_attention: str | None = None,
        cross_attention_options: dict[str, Any] | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(config, ModelConfig):
            raise TypeError(f"config: expected a ModelConfig, got {type(config).__name__}")
        self.config = config
        self.chosen: dict[str, Any] = {
            "attention": attention, "attention_options": attention_options,
            "decoder_attention": decoder_attention,
            "decoder_attention_options": decoder_attention_options,
            "cross_attention": cross_attention, "cross_attention_options": cross_attention_options,
        }  # fmt: skip
        self.swap_notes: tuple[str, ...] = ()
        has_both = config.architecture == "encoder_decoder"
        for name, value in self.chosen.items():
            if value is not None and not has_both and not name.startswith("attention"):
                raise ValueError(f"{name}: only an encoder-decoder has one; got {value!r}")
        self.tokens = DrawnEmbedding(config.vocab_size, config.d_model)
        self.rotary: RotaryPositions | None = None
        if config.positions == "rotary":
            self.rotary = RotaryPositions(head_dim=config.head_dim)
        self.encoder_embeddings: Embeddings | None = None
        self.encoder: TransformerStack | None = None
        self.decoder_embeddings: Embeddings | None = None
        self.decoder: TransformerStack | None = None
        if config.architecture != "decoder":
            check_layers_serve("attention", attention, config.num_layers, causal=False)
            self.encoder_embeddings = Embeddings(config, self.tokens)
            self.encoder = TransformerStack.of(
                config, attention, rotary=self.rotary, attention_options=attention_options
            )
        if config.architecture != "encoder":
            names: Names = decoder_attention or attention
            options = decoder_attention_options
            if options is None and names == attention:
                options = attention_options
            argument = "decoder_attention" if has_both else "attention"
            check_layers_serve(argument, names, config.num_layers, causal=True)
            self.decoder_embeddings = Embeddings(config, self.tokens)
            self.decoder = TransformerStack.of(
                config, names, rotary=self.rotary, attention_options=options, is_causal=True,
                first_layer=config.num_layers if has_both else 0,
                cross_attention=cross_attention or "sdpa" if has_both else None,
                cross_attention_options=cross_attention_options,
            )  # fmt: skip
        self.logits = Logits(config, self.tokens)
        self.checkpointing = checkpointing

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Move or convert; weights that are tied stay so (`to_empty` makes each anew)."""
        moved = super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        if self.config.tied:
            self.logits.proj.weight = self.tokens.weight
        return moved

    @property
    def checkpointing(self) -> bool:
        """Whether training computes each block again in the backward pass."""
        return all(stack.checkpointing for stack in self._stacks)

    @checkpointing.setter
    def checkpointing(self, value: bool) -> None:
        for stack in self._stacks:
            stack.checkpointing = check_bool("checkpointing", value)

    @property
    def _stacks(self) -> list[TransformerStack]:
        return [stack for stack in (self.encoder, self.decoder) if stack is not None]

    def forward(
        self,
        input_ids: Tensor,
        decoder_input_ids: Tensor | None = None,
        *,
        key_padding_mask: Tensor | None = None,
        decoder_key_padding_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        state: ModelState | None = None,
        **call_inputs: Any,
    ) -> Tensor:
        """Return the logits of the tokens: of the decoder's, if there are two stacks.

        Args:
            input_ids: int64 ``[B, N]``.
            decoder_input_ids: int64 ``[B, M]``, of an encoder-decoder.
            key_padding_mask: bool ``[B, N]``, **True = a token**.
            decoder_key_padding_mask: bool ``[B, M]``, likewise.
            token_type_ids: int64 ``[B, N]``, segments; ``None`` = all 0.
            state: of a decoder-only model (`init_state`): what came before `input_ids`, which it
                takes in.
            **call_inputs: the token masks that the backend declares, bool ``[B, N]``, and
                ``packed`` (`attention.Packed`): documents in one row, of a model of one stack.

        Returns:
            ``[B, N, vocab_size]``, or ``[B, M, vocab_size]``.

        Raises:
            ValueError: if an id is not below the vocabulary's size, a sequence is longer than
                `ModelConfig.max_len`, a shape does not fit, or an input has no use here.
            TypeError: if an input is of the wrong type.
            UnsupportedError: if the backend declares that it cannot serve the request.
        """
        asked = {
            "key_padding_mask": key_padding_mask, "token_type_ids": token_type_ids, **call_inputs
        }  # fmt: skip
        if self.config.architecture == "encoder_decoder":
            if decoder_input_ids is None:
                raise ValueError("decoder_input_ids: an encoder-decoder needs them; got None")
            if state is not None:
                raise ValueError("state: an encoder-decoder decodes by encode and decode")
            memory = self.encode(input_ids, **asked)
            return self.decode(
                decoder_input_ids, memory=memory, key_padding_mask=decoder_key_padding_mask
            )
        for name, value in (
            ("decoder_input_ids", decoder_input_ids),
            ("decoder_key_padding_mask", decoder_key_padding_mask),
        ):
            if value is not None:
                raise ValueError(f"{name}: only an encoder-decoder takes it; expected None")
        if self.config.architecture == "decoder":
            return self.decode(input_ids, state=state, **asked)
        if state is not None:
            raise UnsupportedError(
                "state: an encoder sees the tokens to come; a decoder decodes with a state"
            )
        return self.logits(self.encode(input_ids, **asked).hidden)  # type: ignore[no-any-return]

    def encode(
        self,
        input_ids: Tensor,
        *,
        key_padding_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **call_inputs: Any,
    ) -> Memory:
        """Run the encoder; arguments as in `forward`."""
        if self.encoder is None or self.encoder_embeddings is None:
            raise ValueError("input_ids: a decoder-only model encodes nothing; call the model")
        packed = call_inputs.get("packed")
        self.check_ids(input_ids, key_padding_mask, packed=packed)
        if packed is not None and self.decoder is not None:
            raise UnsupportedError("packed: a decoder would read all documents; expected None")
        positions = None if packed is None else packed.positions_of(input_ids)
        x = self.encoder_embeddings(input_ids, token_type_ids, positions)
        hidden = self.encoder(x, key_padding_mask=key_padding_mask, **call_inputs)
        return Memory(hidden, key_padding_mask)

    def decode(
        self,
        input_ids: Tensor,
        *,
        memory: Memory | None = None,
        key_padding_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        state: ModelState | None = None,
        **call_inputs: Any,
    ) -> Tensor:
        """Run the decoder on ids ``[B, N]``; other arguments and errors as in `forward`.

        `memory` is what `encode` gave: ``None`` = what the state holds, or there is no encoder.
        """
        if self.decoder is None or self.decoder_embeddings is None:
            raise ValueError("input_ids: an encoder decodes nothing; call the model")
        prefix = "decoder_" if self.encoder is not None else ""  # as `forward` calls its inputs
        packed = call_inputs.get("packed")
        if packed is not None and (state is not None or memory is not None):
            raise UnsupportedError("packed: goes with no state and no encoder; expected None")
        self.check_ids(
            input_ids, key_padding_mask, packed=packed,
            name=f"{prefix}input_ids", mask_name=f"{prefix}key_padding_mask",
        )  # fmt: skip
        positions = layers = None
        if state is not None:
            if not isinstance(state, ModelState):
                raise TypeError(f"state: expected one by init_state, got {type(state).__name__}")
            positions = state.positions_of(
                input_ids, key_padding_mask, num_layers=len(self.decoder.blocks),
                max_len=self.config.max_len, name=f"{prefix}input_ids",
            )  # fmt: skip
            memory, layers = memory or state.memory, state.layers
        elif packed is not None:
            positions = packed.positions_of(input_ids)
        elif key_padding_mask is not None:  # a position is that among the tokens
            positions = places(key_padding_mask)
        x = self.decoder_embeddings(input_ids, token_type_ids, positions)
        x = self.decoder(
            x, is_causal=True, key_padding_mask=key_padding_mask, memory=memory,
            positions=positions, states=layers, **call_inputs,
        )  # fmt: skip
        if state is not None:
            state.count(input_ids, key_padding_mask)
        return self.logits(x)  # type: ignore[no-any-return]

    def init_state(self, *, batch_size: int, max_len: int | None = None) -> ModelState:
        """Make the state of a decoder before its first token, of a batch of sequences.

        It is for `max_len` tokens of each, ``None`` = the model's; made under ``torch.autocast``,
        for decoding under it.

        Raises:
            UnsupportedError: if a backend keeps no state, or there is no decoder.
        """
        if self.decoder is None:
            raise UnsupportedError("state: an encoder sees the tokens to come; it decodes nothing")
        most = self.config.max_len if max_len is None else max_len
        return new_state(self.decoder, self.tokens.weight, batch_size=batch_size, max_len=most)

    def check_ids(self, ids: Any, key_padding_mask: Tensor | None = None, **named: Any) -> None:
        """Check ids ``[B, N]`` and their mask; see `models.embeddings.check_ids`."""
        named |= {"vocab_size": self.config.vocab_size, "max_len": self.config.max_len}
        check_ids(ids, key_padding_mask, **named)

    def with_attention(
        self, attention: Names, *, max_len: int | None = None, **options: Any
    ) -> TransformerModel:
        """Return a model with another self-attention and, as far as they fit, the same weights.

        Of an encoder-decoder the encoder's is replaced. A longer `max_len` gets its learned
        positions by repeating those there are (Beltagy et al. 2020, arXiv 2004.05150, section 5).
        What was drawn at random is kept too, where it fits and no seed is given for it. What was
        not kept, and what is new, is said in `swap_notes` of the result.

        Args:
            attention: a backend's name, a list or a pattern.
            max_len: the longest sequence; ``None`` = as it is.
            **options: the backend's constructor arguments, for all layers.

        Raises:
            ValueError: if an argument is out of range.
            TypeError: if the backend has no such option.
            UnsupportedError: if the backend cannot do what the architecture asks of it.
        """
        return swapped(self, attention, max_len, options)  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return self.tokens.weight.dtype

    def generate(self, input_ids: Tensor, **how: Any) -> Generated:
        """Generate tokens; see `models.generation.generate`."""
        return generate(self, input_ids, **how)

    def num_parameters(self) -> int:
        """Count the parameters; a tied one once."""
        return sum(p.numel() for p in self.parameters())
