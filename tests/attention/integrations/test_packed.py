"""transformers' packed inputs, position ids that restart: each sequence by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers_transformers import BATCH, LENGTH, build, hidden, inputs, pair
from torch import Tensor

from attention import Packed, UnsupportedError
from attention.integrations import transformers as ours

LENGTHS = ((20, 1, 27), (9, 30, 9))


@pytest.fixture(autouse=True)
def _registered() -> None:
    pytest.importorskip("transformers", reason="needs the extra 'peers'")
    ours.register(longformer={"window": 5})


def packed_inputs() -> dict[str, Any]:
    places = torch.cat([Packed(lengths).positions for lengths in LENGTHS])
    return {"input_ids": inputs()["input_ids"], "position_ids": places, "use_cache": False}


@pytest.mark.parametrize(
    ("kind", "backend", "window"),
    [
        ("Llama", "full", 5), ("Mistral", "full", 5), ("Gemma3Text", "full", 5),
        ("Llama", "longformer", LENGTH), ("Mistral", "longformer", 5),
    ],
)  # fmt: skip
def test_they_are_as_in_transformers(kind: str, backend: str, window: int) -> None:
    ours.register(longformer={"window": window})
    theirs, mine = pair(kind, f"attnbench_{backend}")
    outs = [hidden(model, packed_inputs()) for model in (theirs, mine)]
    torch.testing.assert_close(outs[1], outs[0], atol=1e-4, rtol=1e-4)
    grads: list[list[Tensor]] = []
    for model, out in zip((theirs, mine), outs, strict=True):
        out.square().sum().backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(grads[1], grads[0], atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("backend", ["longformer", "performer", "bigbird"])
def test_every_backend_reads_each_sequence_alone(backend: str) -> None:
    model, given = build("Llama", f"attnbench_{backend}"), packed_inputs()
    with torch.no_grad():
        together = hidden(model, given)
        for row in range(BATCH):
            packed = Packed(LENGTHS[row])
            ids = packed.split(given["input_ids"][row : row + 1])
            alone = [hidden(model, {"input_ids": part, "use_cache": False}) for part in ids]
            torch.testing.assert_close(
                together[row : row + 1], torch.cat(alone, dim=1), atol=1e-4, rtol=1e-4
            )


@pytest.mark.parametrize(
    "change", [{"use_cache": True}, {"attention_mask": inputs()["attention_mask"]}]
)
def test_sequences_that_would_see_one_another_are_refused(change: dict[str, Any]) -> None:
    model = build("Llama", "attnbench_full")
    with pytest.raises(UnsupportedError, match="position_ids: they start anew within a row"):
        hidden(model, packed_inputs() | change)
