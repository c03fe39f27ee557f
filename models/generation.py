"""Generate tokens: greedy, or drawn with a temperature, from the likeliest few or a nucleus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from attention.checks import check_bool, check_int, check_mask, check_seed
from attention.functional import real_first
from models.config import ModelConfig
from models.layers.block import Memory
from models.layers.pattern import layer_names
from models.layers.token_mixer import token_masks
from models.sampling import Choice
from models.state import ModelState


@dataclass(frozen=True)
class Generated:
    """What was generated.

    Attributes:
        ids: the new tokens, int64 ``[B, T]``; behind a sequence's stop token stands the padding.
        lengths: new tokens of each sequence, its stop token included, int64 ``[B]``.
    """

    ids: Tensor
    lengths: Tensor


class DecodingModel(Protocol):
    """What generation asks of a model; `models.transformer.TransformerModel` is one."""

    config: ModelConfig
    chosen: dict[str, Any]

    def check_ids(self, ids: Any, key_padding_mask: Tensor | None = None) -> None:
        """Refuse ids that the model does not know."""

    def encode(
        self, input_ids: Tensor, *, key_padding_mask: Tensor | None = None, **call_inputs: Tensor
    ) -> Memory:
        """Run the encoder."""

    def init_state(self, *, batch_size: int, max_len: int | None = None) -> ModelState:
        """Make the decoder's state before its first token."""

    def decode(
        self,
        input_ids: Tensor,
        *,
        memory: Memory | None = None,
        key_padding_mask: Tensor | None = None,
        state: ModelState | None = None,
        **call_inputs: Tensor,
    ) -> Tensor:
        """Return the logits after each token."""

    def modules(self) -> Iterator[nn.Module]:
        """Walk the model's modules."""

    def eval(self) -> Any:
        """Set evaluation mode."""


@torch.no_grad()
def generate(
    model: DecodingModel,
    input_ids: Tensor,
    *,
    max_new_tokens: int,
    key_padding_mask: Tensor | None = None,
    start_id: int | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_ids: int | Sequence[int] = (),
    pad_id: int = 0,
    seed: int = 0,
    use_state: bool = True,
    **call_inputs: Tensor | None,
) -> Generated:
    """Generate tokens behind a prompt, or, with an encoder-decoder, an answer to an input.

    The model runs in eval mode. With and without a state the tokens are the same, up to what
    rounding decides between two that are equally likely.

    Args:
        model: a decoder or an encoder-decoder.
        input_ids: int64 ``[B, N]``.
        max_new_tokens: of each sequence; the last one is not read, so a prompt and the others
            may be as long as the model allows.
        key_padding_mask: bool ``[B, N]``, True = a token; so prompts may differ in length.
        start_id: first token of an encoder-decoder's answer.
        temperature: see `Choice`.
        top_k: see `Choice`.
        top_p: see `Choice`.
        stop_ids: a sequence ends with this token, or with any of these.
        pad_id: stands behind the end.
        seed: of the draws.
        use_state: whether each step computes its own token alone; ``False`` computes all anew.
        **call_inputs: the token masks that the backend declares for `input_ids`, bool ``[B, N]``;
            of a decoder-only model, False for every new token.

    Raises:
        ValueError: if an argument is out of range, has no use or does not fit the model.
        TypeError: if an argument has the wrong type.
        UnsupportedError: if the backend decodes with no state and `use_state` is true.
    """
    choice = Choice(temperature, top_k, top_p)
    model.check_ids(input_ids, key_padding_mask)
    if not len(input_ids):
        raise ValueError("input_ids: expected at least one prompt, got none")
    stops = _checked_stops(stop_ids)
    vocabulary = model.config.vocab_size
    for name, given in (
        ("pad_id", pad_id),
        ("start_id", start_id or 0),
        *(("stop_ids", i) for i in stops),
    ):
        if check_int(name, given, minimum=0) >= vocabulary:
            raise ValueError(f"{name}: expected below vocab_size={vocabulary}, got {given}")
    check_int("max_new_tokens", max_new_tokens, minimum=1)
    check_bool("use_state", use_state)
    extra = _checked_inputs(model, input_ids, call_inputs)
    generator = torch.Generator(input_ids.device).manual_seed(check_seed(seed))
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        run = _Run.begin(
            model, input_ids, key_padding_mask, start_id, max_new_tokens, use_state, extra
        )
        ends = torch.tensor(stops, dtype=torch.int64, device=input_ids.device)
        going = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        new, lengths = [], torch.zeros_like(going, dtype=torch.int64)
        logits = run.first()
        for step in range(max_new_tokens):
            token = choice.next_token(logits, generator).masked_fill(~going, pad_id)
            new.append(token)
            lengths += going
            going = going & ~torch.isin(token, ends)
            if not bool(going.any()) or step + 1 == max_new_tokens:
                break
            logits = run.after(token, going)
    finally:
        for module, mode in modes:
            module.training = mode
    return Generated(torch.stack(new, dim=1), lengths)


def _checked_stops(stop_ids: Any) -> list[Any]:
    """Return the stop tokens as a list, of which each is yet to be checked."""
    if isinstance(stop_ids, int):
        return [stop_ids]
    if not isinstance(stop_ids, Iterable):
        raise TypeError(f"stop_ids: expected whole numbers or one, got {type(stop_ids).__name__}")
    return list(stop_ids)


def _checked_inputs(
    model: DecodingModel, ids: Tensor, given: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return the token masks that were given, checked; those that are ``None`` are absent."""
    names, _ = layer_names("attention", model.chosen["attention"], model.config.num_layers)
    accepted = list(dict.fromkeys(mask for layer in names for mask in token_masks(layer)))
    name = "+".join(dict.fromkeys(names))
    for argument, mask in given.items():
        if argument not in accepted:
            masks = f"also takes {', '.join(accepted)}" if accepted else "takes none"
            raise TypeError(
                f"{argument}: no argument of generate, and no token mask that {name} takes; "
                f"{name} {masks}"
            )
        if mask is not None:
            check_mask(argument, mask, (ids.shape[0], ids.shape[1]), ids)
    return {argument: mask for argument, mask in given.items() if mask is not None}


@dataclass
class _Run:
    """A model that is asked for the logits after the tokens so far."""

    model: DecodingModel
    ids: Tensor
    mask: Tensor
    memory: Memory | None
    state: ModelState | None
    extra: dict[str, Tensor]

    @classmethod
    def begin(
        cls,
        model: DecodingModel,
        input_ids: Tensor,
        mask: Tensor | None,
        start_id: int | None,
        max_new_tokens: int,
        use_state: bool,
        extra: dict[str, Tensor],
    ) -> _Run:
        """Encode the checked input, if there is an encoder, and check that the answer fits."""
        architecture, memory = model.config.architecture, None
        if architecture == "encoder":
            raise ValueError("model: an encoder sees the tokens to come; a decoder generates")
        if (start_id is None) != (architecture == "decoder"):
            raise ValueError(
                f"start_id: an encoder-decoder needs one, a decoder has its prompt; got {start_id}"
            )
        if mask is None:
            mask = torch.ones_like(input_ids, dtype=torch.bool)
        elif not bool(mask.any(dim=1).all()):
            raise ValueError("key_padding_mask: a prompt without any token")
        ids = input_ids
        if start_id is not None:
            memory = model.encode(input_ids, key_padding_mask=mask, **extra)
            memory.projected, extra = {}, {}
            ids = input_ids.new_full((len(input_ids), 1), start_id)
            mask = torch.ones_like(ids, dtype=torch.bool)
        # Real tokens first: what is generated follows them.
        order = real_first(mask)
        ids, mask = ids.gather(1, order), mask.gather(1, order)
        longest = int(mask.sum(dim=1).max())
        ids, mask = ids[:, :longest], mask[:, :longest]
        # False where new tokens will stand in place of padding.
        extra = {name: x.gather(1, order)[:, :longest] & mask for name, x in extra.items()}
        read = longest + max_new_tokens - 1  # the last token that is generated is not
        if read > model.config.max_len:
            raise ValueError(
                f"max_new_tokens: {longest} tokens and {max_new_tokens} more are over the model's "
                f"max_len={model.config.max_len}, and one that is not read"
            )
        state = None
        if use_state:
            state = model.init_state(batch_size=len(ids), max_len=read)
            state.memory = memory
        return cls(model, ids, mask, memory, state, extra)

    def first(self) -> Tensor:
        """Return the logits after the prompt, ``[B, V]``."""
        return self._last(self._run(self.ids, self.mask, **self.extra))

    def after(self, token: Tensor, going: Tensor) -> Tensor:
        """Return the logits after one more token of each sequence that is `going`, ``[B, V]``."""
        if self.state is not None:
            return self._run(token[:, None], going[:, None])[:, -1]
        at = self.mask.sum(dim=1, keepdim=True)
        self.ids = torch.cat([self.ids, torch.zeros_like(at)], dim=1).scatter(
            1, at, token[:, None]
        )
        grown = torch.cat([self.mask, torch.zeros_like(self.mask[:, :1])], dim=1)
        self.mask = grown.scatter(1, at, going[:, None])
        none = torch.zeros_like(self.mask[:, :1])
        self.extra = {name: torch.cat([x, none], dim=1) for name, x in self.extra.items()}
        return self._last(self._run(self.ids, self.mask, **self.extra))

    def _run(self, ids: Tensor, mask: Tensor, **extra: Tensor) -> Tensor:
        whole = None if bool(mask.all()) else mask
        return self.model.decode(
            ids, memory=self.memory, key_padding_mask=whole, state=self.state, **extra
        )

    def _last(self, logits: Tensor) -> Tensor:
        """Return the logits of each sequence's last token."""
        at = (self.mask.sum(dim=1) - 1)[:, None, None].expand(-1, 1, logits.shape[2])
        return logits.gather(1, at)[:, 0]
