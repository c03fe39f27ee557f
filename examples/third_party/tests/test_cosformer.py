"""The contract, a test a check, and what this backend promises beyond it."""

import torch

import attention
from attention.testing import contract

test_contract = contract("cosformer")


def test_it_is_found_by_name() -> None:
    assert "cosformer" in attention.names()


def test_far_keys_count_less() -> None:
    attend = attention.build("cosformer", num_heads=1, head_dim=4, seq_len=8)
    q, k = torch.ones(1, 1, 8, 4), torch.ones(1, 1, 8, 4)
    weights = attend(q, k, torch.eye(8)[None, None, :, :4])[0, 0, 0]
    assert (weights.diff() < 0).all()
