"""Float32 products at full rate: only where they stay float32, and the setting comes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import attention
from attention.kernels import onednn

SETTING: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
HERE = torch.zeros(1)


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    before = SETTING.fp32_precision
    yield
    SETTING.fp32_precision = before
    onednn.choose("auto")


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "is_faster_here", lambda: True)


def setting_inside(like: torch.Tensor) -> str:
    with onednn.full_rate(like):
        return str(SETTING.fp32_precision)


@pytest.mark.usefixtures("faster")
def test_only_float32_on_a_cpu_and_only_by_default() -> None:
    before = SETTING.fp32_precision
    assert setting_inside(HERE) == "bf16"
    assert onednn.mark(HERE) == "+onednn"
    for other in (HERE.double(), HERE.to("meta")):
        assert setting_inside(other) == before
        assert onednn.mark(other) == ""
    onednn.choose("torch")
    assert setting_inside(HERE) == before
    assert SETTING.fp32_precision == before
    with pytest.raises(ValueError, match="choice: expected one of auto, torch"):
        onednn.choose("mkl")  # type: ignore[arg-type]


@pytest.mark.usefixtures("faster")
def test_what_the_user_has_set_stays() -> None:
    for chosen in ("tf32", "bf16"):
        SETTING.fp32_precision = chosen
        assert setting_inside(HERE) == chosen
        assert onednn.mark(HERE) == ""
        assert SETTING.fp32_precision == chosen


@pytest.mark.usefixtures("faster")
def test_the_setting_comes_back_after_an_error_and_after_the_last_thread() -> None:
    before = SETTING.fp32_precision
    with pytest.raises(RuntimeError, match="within"), onednn.full_rate(HERE):
        raise RuntimeError("within")
    assert SETTING.fp32_precision == before
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with onednn.full_rate(HERE):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    assert entered.wait(10)
    with onednn.full_rate(HERE):
        pass
    assert SETTING.fp32_precision == "bf16"  # the other thread is still inside
    leave.set()
    thread.join()
    assert SETTING.fp32_precision == before


def test_a_product_that_rounds_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: exact(a.bfloat16(), b.bfloat16()).float())
    assert not onednn._keeps_precision()


def test_backends_agree_with_torchs_own_products_and_say_which_ran() -> None:
    q, k, v = torch.randn(3, 1, 2, 300, 16).unbind(0)
    for name, options in (
        ("longformer", {"window": 40}),
        ("bigbird", {"block_size": 16}),
        ("linformer", {"seq_len": 300, "rank": 32}),
        ("performer", {"num_features": 32}),
    ):
        module = attention.build(name, num_heads=2, head_dim=16, **options)
        onednn.choose("auto")
        at_full_rate = module(q, k, v)
        assert module.kernel.endswith("+onednn") == onednn.is_faster_here()
        onednn.choose("torch")
        torch.testing.assert_close(at_full_rate, module(q, k, v), rtol=1e-4, atol=1e-5)
        assert "onednn" not in module.kernel


def test_the_trial_is_not_counted_among_the_callers_operations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onednn, "_faster_here", None)
    with FlopCounterMode(display=False) as counter:
        onednn.is_faster_here()
    assert counter.get_total_flops() == 0
