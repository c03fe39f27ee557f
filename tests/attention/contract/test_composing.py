"""What a call composes with: exports, traces, ``torch.func``, nested tensors, dry runs."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from helpers_covering import covering
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.export import Dim

import attention
from attention.base import Attention
from attention.functional import exact_attention_rows, relative_l2
from models import MultiheadAttention, RotaryPositions, TransformerModel, named_config
from results.schema import DEVICES

HERE = [name for name in attention.names() if name != "xformers"]
OPTIONS: dict[str, dict[str, Any]] = {
    "longformer": {"window": 3},
    "bigbird": {"block_size": 4},
    "linformer": {"seq_len": 24, "rank": 6},
    "performer": {"seed": 0},
}


def build(name: str) -> Attention:
    return attention.build(name, num_heads=2, head_dim=8, **OPTIONS.get(name, {})).eval()


def served(name: str) -> list[bool]:
    """Return the `is_causal` that a backend serves, bidirectional calls first."""
    supports = attention.get(name).supports
    return [False] * supports.bidirectional + [True] * supports.causal


def preset(name: str) -> str:
    """Return a model that a backend serves."""
    return "bert-base" if name == "lstm" or served(name)[0] is False else "gpt2-small"


def qkv(batch: int, n: int, m: int | None = None) -> list[Tensor]:
    return [torch.randn(batch, 2, size, 8) for size in (n, m or n, m or n)]


class Asked(nn.Module):
    """A call with `is_causal` as it was built with: exports and traces take tensors alone."""

    def __init__(self, attend: Attention, is_causal: bool) -> None:
        super().__init__()
        self.attend, self.is_causal = attend, is_causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.attend(q, k, v, is_causal=self.is_causal, key_padding_mask=mask)  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore")  # the exporter's own
@covering(("padding", [False, True]), ("is_causal", [False, True]), ("name", ["full", "sdpa"]))
def test_an_export_takes_any_batch_and_length(name: str, is_causal: bool, padding: bool) -> None:
    batch, length = Dim("batch"), Dim("length")

    def inputs(rows: int, n: int) -> list[Tensor]:
        return [*qkv(rows, n), *([torch.rand(rows, n) > 0.4] if padding else [])]

    shapes = [{0: batch, 2: length}] * 3 + [{0: batch, 1: length}] * padding
    program = torch.export.export(
        Asked(build(name), is_causal), tuple(inputs(3, 6)), dynamic_shapes=tuple(shapes)
    )
    asked = [node for node in program.graph.nodes if "fused_sdp_choice" in str(node.target)]
    assert not asked
    for rows, n in ((5, 11), (2, 40), (7, 3)):
        q, k, v, *mask = inputs(rows, n)
        expected = exact_attention_rows(
            q, k, v, is_causal=is_causal, key_padding_mask=mask[0] if mask else None
        )
        torch.testing.assert_close(program.module()(q, k, v, *mask), expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("name", ["full", "sdpa"])
def test_an_export_takes_more_or_fewer_keys_than_queries(name: str, is_causal: bool) -> None:
    keys = {2: Dim("keys")}
    program = torch.export.export(
        Asked(build(name), is_causal), (*qkv(2, 6, 9), torch.rand(2, 9) > 0.4),
        dynamic_shapes=({2: Dim("queries")}, keys, keys, {1: keys[2]}),
    )  # fmt: skip
    for n, m in ((7, 3), (4, 30), *([(5, 5)] if not is_causal else [])):
        q, k, v = qkv(2, n, m)
        mask = torch.rand(2, m) > 0.4
        expected = exact_attention_rows(q, k, v, is_causal=is_causal, key_padding_mask=mask)
        torch.testing.assert_close(program.module()(q, k, v, mask), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_padding_in_a_graph_has_no_weight_in_any_dtype(dtype: torch.dtype) -> None:
    torch.compiler.reset()
    q, k, v = (x.to(dtype).requires_grad_() for x in qkv(2, 20))
    with torch.no_grad():
        k *= 40  # scores of a deviation of 40: a padded key could win by far
    mask = torch.rand(2, 20) > 0.5
    mask[0, :7] = False
    compiled = torch.compile(build("sdpa"), fullgraph=True, backend="eager")
    out = compiled(q, k, v, is_causal=True, key_padding_mask=mask)
    grads = torch.autograd.grad(out.square().sum(), (q, k, v))
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    right = exact_attention_rows(*wide, is_causal=True, key_padding_mask=mask)
    wanted = torch.autograd.grad(right.square().sum(), wide)
    near = 1e-9 if dtype == torch.float64 else 0.03
    for ours, expected in zip((out, *grads), (right, *wanted), strict=True):
        assert relative_l2(ours, expected) <= near
    assert not grads[1].masked_fill(mask[:, None, :, None], 0.0).any()


@pytest.mark.filterwarnings("ignore")  # the tracer's: sizes become constants
@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("name", HERE)
def test_a_trace_computes_the_same_or_is_refused(name: str, padding: bool) -> None:
    is_causal = name != "linformer"
    module = Asked(build(name), is_causal)
    mask = [torch.arange(9) < torch.tensor([[9], [4]])] if padding else []
    if name not in ("full", "sdpa"):
        with pytest.raises(attention.UnsupportedError, match=r"torch\.jit\.trace: .*expected"):
            torch.jit.trace(module, (*qkv(2, 9), *mask))
        return
    traced = torch.jit.trace(module, (*qkv(2, 9), *mask))
    q, k, v = qkv(2, 9)
    mask = [x.flip(1) for x in mask]  # padding in front: what was asked of the first one is wrong
    expected = exact_attention_rows(
        q, k, v, is_causal=True, key_padding_mask=mask[0] if mask else None
    )
    torch.testing.assert_close(traced(q, k, v, *mask), expected)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("is_causal", [False, True])
def test_sdpa_under_vmap_and_per_sample_gradients(is_causal: bool) -> None:
    module, (q, k, v) = build("sdpa"), qkv(3, 7)
    mask = torch.rand(3, 7) > 0.3

    def loss(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        masks = None if mask is None else mask[None]
        out = module(q[None], k[None], v[None], is_causal=is_causal, key_padding_mask=masks)
        return out.square().sum()  # type: ignore[no-any-return]

    for one in (None, mask):
        over = (0, 0, 0, None if one is None else 0)
        ours = torch.vmap(torch.func.grad(loss, argnums=(0, 1, 2)), in_dims=over)(q, k, v, one)
        assert module.kernel == "auto"
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        out = exact_attention_rows(*inputs, is_causal=is_causal, key_padding_mask=one)
        expected = torch.autograd.grad(out.square().sum(), inputs)
        torch.testing.assert_close(ours, expected)


def jagged(*lengths: int) -> Tensor:
    parts = [torch.randn(n, 2, 8) for n in lengths]
    return torch.nested.nested_tensor(parts, layout=torch.jagged).transpose(1, 2)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_sdpa_takes_jagged_tensors_and_the_others_refuse_them() -> None:
    x, module = jagged(6, 4, 9), build("sdpa")
    out = module(x, x, x)
    assert module.kernel == "auto"
    rows = zip(out.transpose(1, 2).unbind(), x.transpose(1, 2).unbind(), strict=True)
    for ours, given in rows:
        one = given.transpose(0, 1)[None]
        torch.testing.assert_close(ours.transpose(0, 1)[None], exact_attention_rows(one, one, one))
    with pytest.raises(attention.UnsupportedError, match="is_causal: of nested tensors"):
        module(x, x, x, is_causal=True)
    with pytest.raises(ValueError, match="key_padding_mask: nested tensors hold no padding"):
        module(x, x, x, key_padding_mask=torch.ones(3, 9, dtype=torch.bool))
    for name in HERE:
        if name != "sdpa":
            with pytest.raises(
                attention.UnsupportedError, match=r"q: .*nested.*only a call of sdpa"
            ):
                build(name)(x, x, x)


def without_values(x: Tensor, how: str, fake: FakeTensorMode) -> Tensor:
    return x.to("meta") if how == "meta" else fake.from_tensor(x)


NOT_A_LEAF = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)
"""Torch looks at it where a fake tensor is made of a real one."""


@NOT_A_LEAF
@pytest.mark.parametrize("how", ["meta", "fake"])
@pytest.mark.parametrize("name", HERE)
def test_a_dry_run_gives_shapes(name: str, how: str) -> None:
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    module = build(name)
    module = module.to("meta") if how == "meta" else module
    q, k, v = (without_values(x, how, fake).requires_grad_() for x in qkv(2, 24))
    mask = without_values(torch.ones(2, 24, dtype=torch.bool), how, fake)
    for is_causal in served(name):
        for masks in (None, mask):
            out = module(q, k, v, is_causal=is_causal, key_padding_mask=masks)
            grads = torch.autograd.grad(out.sum(), (q, k, v))
            assert [x.shape for x in (out, *grads)] == [q.shape, *(x.shape for x in (q, k, v))]
            assert out.dtype == q.dtype
            assert out.device == q.device


@pytest.mark.parametrize("how", ["meta", "fake"])
@pytest.mark.parametrize("name", [*HERE, "lstm"])
def test_a_dry_run_of_a_model_gives_shapes(name: str, how: str) -> None:
    config = named_config(preset(name)).scaled(
        num_layers=1, d_model=16, num_heads=2, d_ff=32, vocab_size=50, max_len=24
    )
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    model = TransformerModel(config, attention=name, attention_options=OPTIONS.get(name))
    model = model.to("meta") if how == "meta" else model
    ids = without_values(torch.randint(0, 50, (3, 24)), how, fake)
    mask = without_values(torch.ones(3, 24, dtype=torch.bool), how, fake)
    with fake:
        logits = model(ids, key_padding_mask=mask)
    assert logits.shape == (3, 24, 50)


@NOT_A_LEAF
def test_a_dry_run_leaves_no_fake_angles_behind() -> None:
    layer = MultiheadAttention(d_model=16, num_heads=2, rotary=RotaryPositions(head_dim=8))
    x = torch.randn(2, 5, 16)
    expected = copy.deepcopy(layer)(x)
    layer(FakeTensorMode(allow_non_fake_inputs=True).from_tensor(x))
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("name", HERE)
def test_a_batch_of_zero_is_served(name: str) -> None:
    module = build(name)
    for is_causal in served(name):
        for mask in (None, torch.ones(0, 24, dtype=torch.bool)):
            q, k, v = (x[:0].clone().requires_grad_() for x in qkv(1, 24))
            out = module(q, k, v, is_causal=is_causal, key_padding_mask=mask)
            out.sum().backward()
            assert out.shape == q.shape
            assert all(x.grad is not None and x.grad.shape == x.shape for x in (q, k, v))
            assert all(p.grad is not None and not p.grad.any() for p in module.parameters())


@pytest.mark.parametrize("name", [*HERE, "lstm"])
def test_a_model_takes_a_batch_of_zero(name: str) -> None:
    config = named_config(preset(name)).scaled(
        num_layers=1, d_model=16, num_heads=2, d_ff=32, vocab_size=50, max_len=24
    )
    model = TransformerModel(config, attention=name, attention_options=OPTIONS.get(name))
    ids, mask = torch.zeros(0, 24, dtype=torch.int64), torch.ones(0, 24, dtype=torch.bool)
    logits = model(ids, key_padding_mask=mask)
    logits.sum().backward()
    assert logits.shape == (0, 24, 50)


def test_the_device_is_named_before_anything_else() -> None:
    q, other = torch.zeros(1, 3, 5, 7), torch.zeros(1, 2, 5)
    with pytest.raises(attention.UnsupportedError, match=r"^device: .*no CPU kernel$"):
        attention.XFormersAttention(num_heads=2, head_dim=8)(q, other, other)

    class OnlyThere(attention.FullAttention):
        name = "only_there"
        supports = attention.Supports(causal=True, dtypes={"cuda": (torch.float32,)}, state=True)

    module = OnlyThere(num_heads=2, head_dim=8)
    for call in (
        lambda: module(q.long(), other, other, is_causal=math.pi),
        lambda: module.prefill(q, other, other, None),
    ):
        with pytest.raises(attention.UnsupportedError, match=r"^device: only_there runs on cuda"):
            call()


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_what_is_torchs_own_is_declared_for_unmeasured_devices(device: str) -> None:
    for name in attention.names():
        declared = attention.describe(name)
        own = name in ("full", "sdpa")
        assert (device in declared["unmeasured"]) == (device in declared["dtypes"]) == own
        (reason,) = attention.get(name).unavailable_reasons(device)[:1] or [""]
        if not own:
            assert reason.endswith(f"not {device}")
        elif not getattr(torch, device).is_available():
            assert reason == f"device: torch sees no {device.upper()} device here"
    assert device not in DEVICES
