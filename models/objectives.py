"""Training objectives as plain functions of a model and its tokens: masked, next, shifted.

Each returns the mean cross-entropy in nats a token, a scalar with a graph. Padding counts nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention.checks import check_float, check_int
from attention.functional import has_values, only_trailing_padding
from attention.packed import Packed
from models.embeddings import check_ids

IGNORED = -100
"""The label of a token that is not predicted."""


def mask_tokens(
    input_ids: Tensor,
    *,
    vocab_size: int,
    mask_id: int,
    probability: float = 0.15,
    key_padding_mask: Tensor | None = None,
    special_ids: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Choose tokens to predict and hide them: 80 % masked, 10 % replaced, 10 % kept.

    Devlin et al. 2019, arXiv 1810.04805, section 3.1.

    Args:
        input_ids: int64 ``[B, N]``.
        vocab_size: of the random replacements.
        mask_id: what stands for a masked token.
        probability: that a token is chosen.
        key_padding_mask: bool ``[B, N]``, True = a token.
        special_ids: tokens that are never chosen.
        generator: of the choice; ``None`` = torch's own.

    Returns:
        inputs and labels, int64 ``[B, N]``; a label is `IGNORED` where nothing is predicted.

    Raises:
        ValueError: if an argument is out of range or does not fit.
        TypeError: if an argument has the wrong type.
    """
    _check_ids(None, input_ids, key_padding_mask)
    check_int("vocab_size", vocab_size, minimum=1)
    _check_id("mask_id", mask_id, vocab_size)
    if check_float("probability", probability, above=0.0) > 1.0:
        raise ValueError(f"probability: expected at most 1, got {probability}")
    shape, device = input_ids.shape, input_ids.device
    draw = torch.rand(shape, generator=generator, device=device)
    chosen = draw < probability
    for special in special_ids:
        chosen &= input_ids != special
    if key_padding_mask is not None:
        chosen &= key_padding_mask
    kind = torch.rand(shape, generator=generator, device=device)
    other = torch.randint(0, vocab_size, shape, generator=generator, device=device)
    hidden = input_ids.masked_fill(chosen & (kind < 0.8), mask_id)
    hidden = torch.where(chosen & (kind >= 0.8) & (kind < 0.9), other, hidden)
    return hidden, input_ids.masked_fill(~chosen, IGNORED)


def masked_lm_loss(
    model: nn.Module,
    input_ids: Tensor,
    *,
    vocab_size: int,
    mask_id: int,
    probability: float = 0.15,
    key_padding_mask: Tensor | None = None,
    special_ids: Sequence[int] = (),
    generator: torch.Generator | None = None,
    packed: Packed | None = None,
) -> Tensor:
    """Predict hidden tokens from both sides; arguments as in `mask_tokens`, and `packed`.

    Each token is then predicted from its document alone (`attention.Packed`).

    Raises:
        ValueError: if no token was chosen, or an argument is out of range or does not fit.
        TypeError: if an argument has the wrong type.
    """
    of_row = {} if packed is None else {"packed": packed}
    _check_ids(model, input_ids, key_padding_mask, **of_row)
    inputs, labels = mask_tokens(
        input_ids,
        vocab_size=vocab_size,
        mask_id=mask_id,
        probability=probability,
        key_padding_mask=key_padding_mask,
        special_ids=special_ids,
        generator=generator,
    )
    if has_values(labels) and not bool((labels != IGNORED).any()):
        raise ValueError(
            f"input_ids: of {input_ids.numel()} tokens none was chosen; give more tokens or a "
            "larger probability"
        )
    return _cross_entropy(model(inputs, key_padding_mask=key_padding_mask, **of_row), labels)


def next_token_loss(
    model: nn.Module,
    input_ids: Tensor,
    *,
    key_padding_mask: Tensor | None = None,
    packed: Packed | None = None,
) -> Tensor:
    """Predict each token from those before it.

    Args:
        model: a decoder.
        input_ids: int64 ``[B, N]``, N at least 2.
        key_padding_mask: bool ``[B, N]``, True = a token.
        packed: documents in the one row of `input_ids`: the first token of each is predicted by
            nothing.

    Raises:
        ValueError: if there is no next token, or the ids or the mask do not fit the model.
        TypeError: if an argument has the wrong type.
    """
    if packed is not None:
        return _packed_next_token_loss(model, input_ids, key_padding_mask, packed)
    _check_ids(model, input_ids, key_padding_mask, unread=1)
    if input_ids.shape[1] < 2:
        raise ValueError(f"input_ids: expected at least 2 tokens, got {input_ids.shape[1]}")
    labels = input_ids[:, 1:]
    mask = None
    if key_padding_mask is not None:
        mask = key_padding_mask[:, :-1]
        labels = labels.masked_fill(~(key_padding_mask[:, 1:] & mask), IGNORED)
    return _cross_entropy(model(input_ids[:, :-1], key_padding_mask=mask), labels)


def _packed_next_token_loss(
    model: nn.Module, input_ids: Tensor, key_padding_mask: Tensor | None, packed: Packed
) -> Tensor:
    """Predict each token from those before it in its document; no last token is read."""
    if key_padding_mask is not None:
        raise ValueError("key_padding_mask: packed documents hold no padding; expected None")
    _check_ids(model, input_ids, None, packed=packed)
    is_first = packed.positions_of(input_ids) == 0
    if packed.longest < 2:
        raise ValueError(f"packed: expected a document of at least 2 tokens, got {packed}")
    read = input_ids[:, :-1][~is_first[:, 1:]][None]
    labels = input_ids[~is_first][None]
    shorter = Packed([max(0, length - 1) for length in packed.lengths])
    return _cross_entropy(model(read, packed=shorter), labels)


def sequence_to_sequence_loss(
    model: nn.Module,
    input_ids: Tensor,
    target_ids: Tensor,
    *,
    start_id: int,
    key_padding_mask: Tensor | None = None,
    target_padding_mask: Tensor | None = None,
) -> Tensor:
    """Predict a target from an input and the target's tokens before it.

    Args:
        model: an encoder-decoder.
        input_ids: int64 ``[B, N]``.
        target_ids: int64 ``[B, M]``.
        start_id: stands before the first token of a target.
        key_padding_mask: bool ``[B, N]``, True = a token.
        target_padding_mask: bool ``[B, M]``, likewise; padding behind the tokens.

    Raises:
        ValueError: if the ids or a mask do not fit the model, or a target's padding does not
            stand behind its tokens.
        TypeError: if an argument has the wrong type.
    """
    _check_ids(model, input_ids, key_padding_mask)
    _check_ids(
        model, target_ids, target_padding_mask,
        name="target_ids", mask_name="target_padding_mask",
    )  # fmt: skip
    if target_padding_mask is not None and not only_trailing_padding(target_padding_mask):
        raise ValueError(
            "target_padding_mask: expected padding behind the tokens alone: a token is predicted "
            "from the one before it; got some in front of a token"
        )
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", None)
    start = target_ids.new_full((len(target_ids), 1), _check_id("start_id", start_id, vocabulary))
    shifted = torch.cat([start, target_ids[:, :-1]], dim=1)
    labels, mask = target_ids, None
    if target_padding_mask is not None:
        labels = target_ids.masked_fill(~target_padding_mask, IGNORED)
        first = torch.ones_like(target_padding_mask[:, :1])
        mask = torch.cat([first, target_padding_mask[:, :-1]], dim=1)
    logits = model(
        input_ids, shifted, key_padding_mask=key_padding_mask, decoder_key_padding_mask=mask
    )
    return _cross_entropy(logits, labels)


def _check_ids(model: nn.Module | None, ids: Any, mask: Any, **named: Any) -> None:
    """Check ids and their mask as the model does; of one that cannot, what all have in common."""
    check: Callable[..., None] = getattr(model, "check_ids", check_ids)
    check(ids, mask, **named)


def _check_id(name: str, value: int, vocab_size: int | None) -> int:
    """Check that one id is in the vocabulary, where its size is known."""
    if check_int(name, value, minimum=0) >= (vocab_size or value + 1):
        raise ValueError(f"{name}: expected below vocab_size={vocab_size}, got {value}")
    return value


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    wide = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.flatten(0, 1).to(wide), labels.flatten(), ignore_index=IGNORED)
