"""Whole models: embeddings, stacks of the one block, logits.

Encoder-only, decoder-only and encoder-decoder (Vaswani et al. 2017, arXiv 1706.03762) from a
`ModelConfig`, around any backend that can serve them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attention.base import UnsupportedError
from attention.checks import check_bool, check_int, check_mask
from models.block import Memory
from models.config import ModelConfig
from models.embeddings import DEVIATION, DrawnEmbedding, Embeddings, _check_rows
from models.generation import Generated, generate
from models.multihead import MultiheadAttention
from models.norm import make_norm
from models.positional import (
    RotaryPositions,
    places,
    places_after,
)
from models.stack import TransformerStack
from models.state import ModelState
from models.token_mixer import check_serves, mixer_class

EXTRA = "_extra_state"
"""How torch ends the name of what a module keeps in a checkpoint beside tensors."""


class Logits(nn.Module):
    """Map hidden states to logits.

    Args:
        config: of the model.
        tokens: the token embedding, whose weight a tied head uses.
    """

    def __init__(self, config: ModelConfig, tokens: nn.Embedding) -> None:
        super().__init__()
        self.transform: nn.Sequential | None = None
        bias = config.head == "transform"
        if bias:
            self.transform = nn.Sequential(
                nn.Linear(config.d_model, config.d_model),
                nn.GELU(),
                make_norm(config.normalization, config.d_model, eps=config.norm_eps),
            )
        self.proj = _Head(config, bias=bias)
        if config.tied:
            self.proj.weight = tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, N, d_model]`` to ``[B, N, vocab_size]``."""
        out: Tensor = self.proj(x if self.transform is None else self.transform(x))
        return out


class TransformerModel(nn.Module):
    """A whole model.

    Args:
        config: its shape.
        attention: backend of the self-attention, or ``lstm`` in its place: of the encoder, or of
            the only stack.
        attention_options: its constructor arguments, for all layers.
        decoder_attention: of an encoder-decoder's decoder; ``None`` = as `attention`.
        decoder_attention_options: its arguments; ``None`` = `attention_options`, if the backend is
            the same.
        cross_attention: of an encoder-decoder.
        cross_attention_options: its arguments.
        checkpointing: of all stacks, see `TransformerStack`; can be set later too.

    Dropout on the attention weights acts where the backend forms weights; a backend that declares
    none has none to drop.

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
        attention: str = "sdpa",
        attention_options: Mapping[str, Any] | None = None,
        decoder_attention: str | None = None,
        decoder_attention_options: Mapping[str, Any] | None = None,
        cross_attention: str | None = None,
        cross_attention_options: Mapping[str, Any] | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(config, ModelConfig):
            raise TypeError(f"config: expected a ModelConfig, got {type(config).__name__}")
        self.config = config
        self.chosen: dict[str, Any] = {
            "attention": attention,
            "attention_options": attention_options,
            "decoder_attention": decoder_attention,
            "decoder_attention_options": decoder_attention_options,
            "cross_attention": cross_attention,
            "cross_attention_options": cross_attention_options,
        }
        self.swap_notes: tuple[str, ...] = ()
        both = config.architecture == "encoder_decoder"
        for name, value in (
            ("decoder_attention", decoder_attention),
            ("decoder_attention_options", decoder_attention_options),
            ("cross_attention", cross_attention),
            ("cross_attention_options", cross_attention_options),
        ):
            if value is not None and not both:
                raise ValueError(f"{name}: only an encoder-decoder has one; got {value!r}")
        self.tokens = DrawnEmbedding(config.vocab_size, config.d_model)
        self.rotary: RotaryPositions | None = None
        if config.positions == "rotary":
            self.rotary = RotaryPositions(head_dim=config.head_dim)
        self.encoder_embeddings: Embeddings | None = None
        self.encoder: TransformerStack | None = None
        self.decoder_embeddings: Embeddings | None = None
        self.decoder: TransformerStack | None = None
        options = dict(attention_options or {})
        if config.architecture != "decoder":
            check_serves(attention, "attention", causal=False)
            self.encoder_embeddings = Embeddings(config, self.tokens)
            self.encoder = self._stack(attention, options, is_causal=False)
        if config.architecture == "decoder":
            check_serves(attention, "attention", causal=True)
            self.decoder_embeddings = Embeddings(config, self.tokens)
            self.decoder = self._stack(attention, options, is_causal=True)
        if both:
            name = decoder_attention or attention
            if decoder_attention_options is not None:
                options = dict(decoder_attention_options)
            elif name != attention:
                options = {}
            check_serves(name, "decoder_attention", causal=True)
            self.decoder_embeddings = Embeddings(config, self.tokens)
            self.decoder = self._stack(
                name,
                options,
                is_causal=True,
                first_layer=config.num_layers,
                cross_attention=cross_attention or "sdpa",
                cross_attention_options=cross_attention_options,
            )
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

    def _stack(
        self,
        attention: str,
        options: dict[str, Any],
        *,
        is_causal: bool,
        first_layer: int = 0,
        **crossing: Any,
    ) -> TransformerStack:
        config = self.config
        drops = mixer_class(attention).supports.dropout
        if crossing:
            reads = mixer_class(crossing["cross_attention"], "cross_attention").supports.dropout
            crossing["cross_attention_dropout_p"] = config.attention_dropout_p if reads else 0.0
        return TransformerStack(
            num_layers=config.num_layers,
            d_model=config.d_model,
            num_heads=config.num_heads,
            max_len=config.max_len,
            attention=attention,
            attention_options=options,
            d_ff=config.d_ff,
            num_kv_heads=config.num_kv_heads,
            norm=config.norm,
            activation=config.activation,
            dropout_p=config.dropout_p,
            attention_dropout_p=config.attention_dropout_p if drops else 0.0,
            activation_dropout_p=config.activation_dropout_p,
            bias=config.bias,
            normalization=config.normalization,
            norm_eps=config.norm_eps,
            rotary=self.rotary,
            is_causal=is_causal,
            first_layer=first_layer,
            **crossing,
        )

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
            **call_inputs: the token masks that the backend declares, bool ``[B, N]``.

        Returns:
            ``[B, N, vocab_size]``, or ``[B, M, vocab_size]``.

        Raises:
            ValueError: if an id is not below the vocabulary's size, a sequence is longer than
                `ModelConfig.max_len`, a shape does not fit, or an input has no use here.
            TypeError: if an input is of the wrong type.
            UnsupportedError: if the backend declares that it cannot serve the request.
        """
        if self.config.architecture == "encoder_decoder":
            if decoder_input_ids is None:
                raise ValueError("decoder_input_ids: an encoder-decoder needs them; got None")
            if state is not None:
                raise ValueError("state: an encoder-decoder decodes by encode and decode")
            memory = self.encode(
                input_ids,
                key_padding_mask=key_padding_mask,
                token_type_ids=token_type_ids,
                **call_inputs,
            )
            return self.decode(
                decoder_input_ids, memory=memory, key_padding_mask=decoder_key_padding_mask
            )
        for name, value in (
            ("decoder_input_ids", decoder_input_ids),
            ("decoder_key_padding_mask", decoder_key_padding_mask),
        ):
            if value is not None:
                raise ValueError(f"{name}: only an encoder-decoder takes it; expected None")
        if self.config.architecture == "encoder":
            if state is not None:
                raise UnsupportedError(
                    "state: an encoder sees the tokens to come; a decoder decodes with a state"
                )
            memory = self.encode(
                input_ids,
                key_padding_mask=key_padding_mask,
                token_type_ids=token_type_ids,
                **call_inputs,
            )
            out: Tensor = self.logits(memory.hidden)
            return out
        return self.decode(
            input_ids,
            key_padding_mask=key_padding_mask,
            token_type_ids=token_type_ids,
            state=state,
            **call_inputs,
        )

    def encode(
        self,
        input_ids: Tensor,
        *,
        key_padding_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **call_inputs: Tensor | None,
    ) -> Memory:
        """Run the encoder; arguments as in `forward`."""
        if self.encoder is None or self.encoder_embeddings is None:
            raise ValueError("input_ids: a decoder-only model encodes nothing; call the model")
        self.check_ids(input_ids, key_padding_mask)
        x = self.encoder_embeddings(input_ids, token_type_ids)
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
        **call_inputs: Tensor | None,
    ) -> Tensor:
        """Run the decoder on ids ``[B, N]``; arguments as in `forward`.

        Args:
            input_ids: int64 ``[B, N]``.
            memory: of `encode`; ``None`` = what the state holds, or there is no encoder.
            key_padding_mask: bool ``[B, N]``, True = a token.
            token_type_ids: int64 ``[B, N]``.
            state: what came before, by `init_state`; takes the tokens in.
            **call_inputs: the token masks that the backend declares.

        Returns:
            logits ``[B, N, vocab_size]``.
        """
        if self.decoder is None or self.decoder_embeddings is None:
            raise ValueError("input_ids: an encoder decodes nothing; call the model")
        of = self._decoder_prefix
        self.check_ids(
            input_ids,
            key_padding_mask,
            name=f"{of}input_ids",
            mask_name=f"{of}key_padding_mask",
        )
        positions = layers = None
        if state is not None:
            positions = self._positions(input_ids, key_padding_mask, state)
            memory = state.memory if memory is None else memory
            layers = state.layers
        elif key_padding_mask is not None:  # a position is that among the tokens
            positions = places(key_padding_mask)
        x = self.decoder_embeddings(input_ids, token_type_ids, positions)
        x = self.decoder(
            x,
            is_causal=True,
            key_padding_mask=key_padding_mask,
            memory=memory,
            positions=positions,
            states=layers,
            **call_inputs,
        )
        if state is not None:
            counts = input_ids.shape[1] if key_padding_mask is None else key_padding_mask.sum(1)
            state.lengths += counts
        out: Tensor = self.logits(x)
        return out

    @property
    def _decoder_prefix(self) -> str:
        """What stands before the names of the decoder's inputs in `forward`."""
        return "decoder_" if self.encoder is not None else ""

    def _positions(self, ids: Tensor, mask: Tensor | None, state: ModelState) -> Tensor:
        """Return where the tokens of a chunk stand in their sequences, ``[B, N]``."""
        if not isinstance(state, ModelState):
            raise TypeError(f"state: expected one by init_state, got {type(state).__name__}")
        assert self.decoder is not None
        if len(state.layers) != len(self.decoder.blocks):
            raise ValueError(
                f"state: made for {len(state.layers)} layers, this model has "
                f"{len(self.decoder.blocks)}"
            )
        if ids.shape[0] != len(state.lengths):
            raise ValueError(f"state: made for batch {len(state.lengths)}, got {ids.shape[0]}")
        counts = ids.shape[1] if mask is None else mask.sum(dim=1)
        longest = int((state.lengths + counts).max())
        if longest > self.config.max_len:
            raise ValueError(
                f"{self._decoder_prefix}input_ids: a sequence would have {longest} tokens, "
                f"the model is built for max_len={self.config.max_len}"
            )
        # An ended sequence has padding alone, for which there may be no position left.
        last = self.config.max_len - 1
        return places_after(state.lengths, ids.shape[1], mask, last=last)

    def init_state(self, *, batch_size: int, max_len: int | None = None) -> ModelState:
        """Make the state of a decoder before its first token.

        Made under ``torch.autocast`` it is for decoding under it.

        Args:
            batch_size: B.
            max_len: the most tokens of a sequence; ``None`` = the model's.

        Raises:
            UnsupportedError: if the backend decodes with no state.
            ValueError: if an argument is out of range, or there is no decoder.
        """
        if self.decoder is None:
            raise UnsupportedError("state: an encoder sees the tokens to come; it decodes nothing")
        weight = self.tokens.weight
        dtype, device = weight.dtype, weight.device.type
        attends = isinstance(self.decoder.blocks[0].attention, MultiheadAttention)
        if attends and dtype != torch.float64 and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)  # of queries and keys; an LSTM keeps its own
        layers = self.decoder.init_states(
            batch_size=check_int("batch_size", batch_size, minimum=1),
            max_len=self.config.max_len if max_len is None else max_len,
            dtype=dtype,
            device=weight.device,
        )
        with torch.inference_mode(mode=False):
            lengths = torch.zeros(batch_size, dtype=torch.int64, device=weight.device)
        return ModelState(layers, lengths)

    def check_ids(
        self,
        ids: Any,
        key_padding_mask: Tensor | None = None,
        *,
        name: str = "input_ids",
        mask_name: str = "key_padding_mask",
        unread: int = 0,
    ) -> None:
        """Check ids ``[B, N]`` and their mask; errors as in `forward`.

        Args:
            ids: int64 ``[B, N]``.
            key_padding_mask: bool ``[B, N]``.
            name: what errors call the ids.
            mask_name: what they call the mask.
            unread: tokens at the end that are predicted, but not read: they need no position.
        """
        if not isinstance(ids, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(ids).__name__}")
        if ids.dim() != 2 or ids.shape[1] < 1:
            raise ValueError(f"{name}: expected [B, N] with N at least 1, got {tuple(ids.shape)}")
        _check_rows(name, ids, self.config.vocab_size, "vocab_size")
        if ids.shape[1] - unread > self.config.max_len:
            raise ValueError(
                f"{name}: {ids.shape[1]} tokens are more than the model's "
                f"max_len={self.config.max_len}"
            )
        if key_padding_mask is not None:
            check_mask(mask_name, key_padding_mask, (ids.shape[0], ids.shape[1]), ids)

    def copy_call_projections(self) -> None:
        """Start the projections that only some backends have as copies of the usual ones."""
        for layer in self.modules():
            if isinstance(layer, MultiheadAttention):
                layer.copy_call_projections()

    def with_attention(
        self, attention: str, *, max_len: int | None = None, **options: Any
    ) -> TransformerModel:
        """Return a model with another self-attention and, as far as they fit, the same weights.

        Of an encoder-decoder the encoder's is replaced. A longer `max_len` gets its learned
        positions by repeating those there are (Beltagy et al. 2020, arXiv 2004.05150, section 5).
        What was drawn at random is kept too, where it fits and no seed is given for it. What was
        not kept, and what is new, is said in `swap_notes` of the result.

        Args:
            attention: a registered backend's name.
            max_len: the longest sequence; ``None`` = as it is.
            **options: the backend's constructor arguments, for all layers.

        Raises:
            ValueError: if an argument is out of range.
            TypeError: if the backend has no such option.
            UnsupportedError: if the backend cannot do what the architecture asks of it.
        """
        config = self.config
        if max_len is not None:
            config = config.scaled(max_len=check_int("max_len", max_len, minimum=1))
        chosen = {**self.chosen, "attention": attention, "attention_options": options}
        if config.architecture == "encoder_decoder":
            chosen["decoder_attention"] = (
                self.chosen["decoder_attention"] or self.chosen["attention"]
            )
            same = chosen["decoder_attention"] == self.chosen["attention"]
            if self.chosen["decoder_attention_options"] is None:
                given = self.chosen["attention_options"] if same else None
                chosen["decoder_attention_options"] = given or {}
        made = TransformerModel(config, **chosen).to(self.tokens.weight.device, self.dtype)
        for new, old in zip(made._stacks, self._stacks, strict=True):
            new.checkpointing = old.checkpointing
        theirs, notes = dict(self.named_parameters()), list[str]()
        extra = [n for n, _ in made.named_parameters() if ".call_projections." in n]
        with torch.no_grad():
            for name, own in made.named_parameters():
                if name in extra:
                    continue
                given = theirs.pop(name, None)
                if given is None:
                    notes.append(f"{name}: new, drawn at random")
                elif given.shape == own.shape:
                    own.copy_(given)
                elif name.endswith("positions.weight"):
                    notes.append(_repeat_positions(name, own, given, config.position_offset))
                else:
                    notes.append(
                        f"{name}: drawn at random; {tuple(given.shape)} does not fit "
                        f"{tuple(own.shape)}"
                    )
            made.copy_call_projections()
            for name, own in made.named_parameters():
                if name in extra and name in theirs:
                    own.copy_(theirs.pop(name))
                    extra.remove(name)
        notes += [f"{name}: not kept, {attention} has none" for name in theirs]
        notes += self._keep_draws(made, attention, drawn=options.get("seed") is not None)
        if extra:
            notes.append("call_projections: new, copies of the usual projections")
        if config.attention_dropout_p and not mixer_class(attention).supports.dropout:
            notes.append(
                f"attention_dropout_p: {config.attention_dropout_p} is not kept, {attention} "
                "forms no weights to drop"
            )
        made.swap_notes = tuple(notes)
        return made.train(self.training)

    def _keep_draws(self, made: TransformerModel, attention: str, *, drawn: bool) -> list[str]:
        """Copy the buffers that checkpoints hold, as far as they fit; return what is new or lost.

        Args:
            made: gets them, and what its layers keep beside tensors.
            attention: of the stack that was swapped.
            drawn: whether a seed was given for that: what is drawn by it there is not replaced.
        """
        swapped = "encoder." if made.encoder is not None else "decoder."
        theirs, kept, notes = _drawn_by_layer(self), dict[str, Any](), list[str]()
        for layer, own in _drawn_by_layer(made).items():
            given = theirs.pop(layer, {})
            by_seed = drawn and layer.startswith(swapped)
            old, new = (m.get_submodule(layer) if given else None for m in (self, made))
            if not by_seed and type(old) is type(new) and _all_fit(own, given):
                kept |= given
                continue
            how = "drawn by the seed that was given" if by_seed else "drawn at random"
            notes += [f"{name}: new, {how}" for name in own if not name.endswith(EXTRA)]
        for lost in theirs.values():
            notes += [
                f"{name}: not kept, {attention} has none"
                for name in lost
                if not name.endswith(EXTRA)
            ]
        made.load_state_dict(kept, strict=False)
        return notes

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


def _drawn_by_layer(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return what a checkpoint holds beside parameters, by layer: buffers, and extra state."""
    trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    found: dict[str, dict[str, Any]] = {}
    for name, value in model.state_dict().items():
        if name not in trained:
            found.setdefault(name.rpartition(".")[0], {})[name] = value
    return found


def _all_fit(own: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether a layer has the same buffers as another, of the same shapes."""
    return own.keys() == given.keys() and all(
        getattr(x, "shape", None) == getattr(given[name], "shape", None) for name, x in own.items()
    )


def _repeat_positions(name: str, own: Tensor, given: Tensor, offset: int) -> str:
    """Fill learned positions of another length; return what was done."""
    own[:offset] = given[:offset]
    rows, source = own[offset:], given[offset:]
    repeats = -(-len(rows) // len(source))
    rows.copy_(source.repeat(repeats, 1)[: len(rows)])
    if len(rows) <= len(source):
        return f"{name}: the first {len(rows)} of {len(source)} positions are kept"
    return f"{name}: {len(source)} positions, repeated to {len(rows)}"


def count_parameters(config: ModelConfig) -> int:
    """Count the parameters of a configuration with `sdpa`; nothing is allocated."""
    with torch.device("meta"):
        return TransformerModel(config).num_parameters()


class _Head(nn.Linear):
    """A linear layer whose weight is an embedding's or drawn as one; its bias starts at zero."""

    def __init__(self, config: ModelConfig, *, bias: bool) -> None:
        self.is_tied = config.tied
        super().__init__(config.d_model, config.vocab_size, bias=bias)

    def reset_parameters(self) -> None:
        """Draw the weight anew; one that is tied, the embedding draws."""
        if not self.is_tied:
            nn.init.normal_(self.weight, std=DEVIATION)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


__all__ = ["Embeddings", "Logits", "ModelState", "TransformerModel", "count_parameters"]
