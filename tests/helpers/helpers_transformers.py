"""Models of transformers, small and with random weights, and what they are called with."""

from __future__ import annotations

from typing import Any

import torch
from helpers_lazy import transformers
from torch import Tensor

BATCH, LENGTH, VOCAB = 2, 48, 61
TEXT: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 48, "max_position_embeddings": 256, "initializer_range": 0.2,
}  # fmt: skip
GROUPED = {**TEXT, "num_key_value_heads": 2}
LOCAL = {**GROUPED, "sliding_window": 9}
CONFIGS: dict[str, dict[str, Any]] = {
    "Bert": TEXT,
    "GPT2": {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "Llama": GROUPED,
    "Mistral": LOCAL,
    "Gemma3Text": {
        **LOCAL, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 8,
    },
    "ModernBert": {**TEXT, "local_attention": 18, "global_attn_every_n_layers": 2},
    "Bart": {
        "vocab_size": VOCAB, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48, "max_position_embeddings": 256,
    },
}  # fmt: skip
WINDOWED = ("Mistral", "Gemma3Text", "ModernBert")


def config_of(kind: str, **changes: Any) -> Any:
    values = {**CONFIGS[kind], **changes}
    values["init_std" if kind == "Bart" else "initializer_range"] = 0.2  # attention that matters
    if kind != "GPT2":
        values["pad_token_id"] = 0
    return getattr(transformers, f"{kind}Config")(**values)


def build(kind: str, implementation: str, **changes: Any) -> Any:
    config = config_of(kind, **changes)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")._from_config(
        config, attn_implementation=implementation
    )
    return model.eval()


def pair(kind: str, implementation: str, **changes: Any) -> tuple[Any, Any]:
    """Build a model with transformers' own fused attention, and one with ours, alike."""
    theirs, mine = build(kind, "sdpa", **changes), build(kind, implementation, **changes)
    mine.load_state_dict(theirs.state_dict())
    return theirs, mine


def inputs(padded: str = "") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, VOCAB, (BATCH, LENGTH), generator=generator)
    mask = torch.ones(BATCH, LENGTH, dtype=torch.int64)
    if padded:
        mask[1, slice(0, 11) if padded == "left" else slice(LENGTH - 11, None)] = 0
    return {"input_ids": ids, "attention_mask": mask}


def hidden(model: Any, given: dict[str, Tensor]) -> Tensor:
    out = model(**given).last_hidden_state
    assert isinstance(out, Tensor)
    return out


def real(out: Tensor, given: dict[str, Tensor]) -> Tensor:
    return out[given["attention_mask"].bool()]
