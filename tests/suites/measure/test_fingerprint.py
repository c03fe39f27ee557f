from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from suites.measure.fingerprint import compared, fingerprint, projected
from suites.measure.gate import WrongOutputError


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def printed(output: torch.Tensor, allowed: float = 1e-6, **how: float) -> dict[str, Any]:
    found = fingerprint(*projected(output, seed=3, **how), allowed=allowed)
    assert json.loads(json.dumps(found)) == found  # it travels in a record
    return found


@pytest.mark.parametrize("shape", [(2, 4, 300, 8), (2, 300, 32), (300, 32), (1, 2, 1, 16)])
def test_the_same_output_has_no_difference(shape: tuple[int, ...]):
    output = drawn(*shape)
    assert compared("x", output, printed(output), seed=3) == {"difference": 0.0, "allowed": 1e-6}
    assert len(printed(output)["projections"]) == 64


@pytest.mark.parametrize("size", [1e-5, 1e-2, 1.0])
@pytest.mark.parametrize("shape", [(2, 4, 300, 8), (1, 300, 32), (1, 4, 1, 64)])
def test_a_difference_is_told_as_its_relative_l2(shape: tuple[int, ...], size: float):
    output = drawn(*shape)
    other = output + size * drawn(*shape, seed=1)
    found = compared("x", other, printed(output, allowed=10.0), seed=3)
    assert found["difference"] == pytest.approx(size, rel=0.35)


@pytest.mark.parametrize("size", [2e-6, math.nan])
def test_one_that_is_off_is_refused(size: float):
    output = drawn(1, 4, 200, 16)
    with pytest.raises(WrongOutputError, match="x differs from that of the first process by"):
        compared("x", output + size * drawn(1, 4, 200, 16, seed=1), printed(output), seed=3)
    with pytest.raises(WrongOutputError, match="gave 64 numbers, this one 1"):
        compared("x", torch.tensor(1.0), printed(output), seed=3)


def test_a_loss_is_compared_as_the_number_that_it_is():
    loss = torch.tensor(2.0)
    found = printed(loss, allowed=0.1)
    assert [abs(x) for x in found["projections"]] == [found["norm"]] == [2.0]
    assert compared("x", torch.tensor(2.1), found, seed=3)["difference"] == pytest.approx(0.05)


def test_what_cancels_is_held_against_the_terms_that_it_is_left_of():
    left = 1e-9 * drawn(1, 4, 200, 16)
    other = 1e-9 * drawn(1, 4, 200, 16, seed=1)
    with pytest.raises(WrongOutputError):
        compared("dq", other, printed(left), seed=3)
    assert compared("dq", other, printed(left, least=1.0), seed=3)["difference"] < 1e-6


def test_nothing_but_zeros_is_equal_to_zeros_alone():
    zeros = torch.zeros(300, 8)
    assert compared("x", zeros, printed(zeros), seed=3)["difference"] == 0.0
    with pytest.raises(WrongOutputError):
        compared("x", zeros + 1, printed(zeros), seed=3)
