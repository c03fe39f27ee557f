"""Backends under torch.func: gradients, Jacobians, Hessians, and batches of examples by vmap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vjp, vmap

import attention
from attention.base import Attention
from models.layers.identity import IdentityAttention
from models.layers.multihead import MultiheadAttention

N, HEADS, DIM = 5, 2, 4
CASES: list[tuple[str, dict[str, Any]]] = [
    ("full", {}),
    ("sdpa", {"kernel": "math"}),
    ("longformer", {"window": 1}),
    ("longformer", {"window": 2, "dilation": [1, 2]}),
    ("bigbird", {"block_size": 2, "num_random_blocks": 1}),
    ("linformer", {"seq_len": 8, "rank": 4}),
    ("linformer", {"seq_len": 8, "rank": 4, "method": "mean_pool"}),
    ("performer", {"num_features": 8, "seed": 0}),
    ("performer", {"num_features": 8, "seed": 0, "kernel": "chunked", "features": "relu"}),
]


def build(name: str, options: dict[str, Any], **more: Any) -> Attention:
    torch.manual_seed(0)
    return attention.build(name, num_heads=HEADS, head_dim=DIM, **options, **more).double()


def draw(batch: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return q, k, v and a mask with padding at the end, and in the middle of the last row."""
    torch.manual_seed(1)
    q, k, v = (torch.randn(batch, HEADS, N, DIM, dtype=torch.float64) for _ in range(3))
    mask = torch.ones(batch, N, dtype=torch.bool)
    mask[0, -1], mask[-1, 2] = False, False
    return q, k, v, mask


def loss_of(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def loss(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return (run(q, k, v, key_padding_mask=mask) * mask[:, None, :, None]).sin().sum()

    return loss


# torch's own, where it first takes a forward derivative
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_gradients_jacobians_and_hessians_equal_the_reference(
    name: str, options: dict[str, Any]
) -> None:
    module = build(name, options)
    given = draw()
    ours, dense = loss_of(module), loss_of(module.reference)
    for transform in (
        lambda loss: grad(loss, argnums=(0, 1, 2)),
        lambda loss: jacrev(loss, argnums=(0, 2)),
        lambda loss: hessian(loss, argnums=1),
        lambda loss: grad(lambda *args: grad(loss, argnums=1)(*args).square().sum()),
    ):
        torch.testing.assert_close(transform(ours)(*given), transform(dense)(*given))


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_the_hessian_of_autograd_equals_the_reference(name: str, options: dict[str, Any]) -> None:
    """One column at a time, and all columns at once by torch's own vmap."""
    module = build(name, options)
    q, k, v, mask = draw()
    ours, dense = (
        lambda x, run=run: loss_of(run)(q, x, v, mask) for run in (module, module.reference)
    )
    right = torch.autograd.functional.hessian(dense, k)
    for vectorize in (False, True):
        found = torch.autograd.functional.hessian(ours, k, vectorize=vectorize)
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_vmap_over_examples_with_masks_of_their_own(name: str, options: dict[str, Any]) -> None:
    module = build(name, options)
    q, k, v, mask = draw(3)

    def one(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return loss_of(module)(q[None], k[None], v[None], mask[None])

    each = vmap(grad(one, argnums=(0, 1, 2)), in_dims=(0, 0, None, 0))(q, k, v[0], mask)
    for row in range(3):
        right = grad(loss_of(module.reference), argnums=(0, 1, 2))(
            *(x[None] for x in (q[row], k[row], v[0], mask[row]))
        )
        for ours, dense in zip(each, right, strict=True):
            torch.testing.assert_close(ours[row], dense[0])


LAYERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    *((name, options, {}) for name, options in CASES),
    ("linformer", {"seq_len": 8, "rank": 4}, {"projection_order": "sequence_first"}),
    ("performer", {"num_features": 8, "seed": 0}, {"num_kv_heads": 1}),
]


def make_layer(name: str, options: dict[str, Any], more: dict[str, Any]) -> MultiheadAttention:
    return MultiheadAttention(
        d_model=HEADS * DIM, num_heads=HEADS, attention=name, attention_options=options, **more
    ).double()


@pytest.mark.parametrize(("name", "options", "more"), LAYERS, ids=str)
def test_gradients_of_each_example_through_a_layer(
    name: str, options: dict[str, Any], more: dict[str, Any]
) -> None:
    layer = make_layer(name, options, more)
    mask = draw(3)[3]
    x = torch.randn(3, N, HEADS * DIM, dtype=torch.float64)

    def loss(weights: dict[str, Tensor], x: Tensor, mask: Tensor) -> Tensor:
        out = functional_call(layer, weights, (x[None],), {"key_padding_mask": mask[None]})
        return (out * mask[None, :, None]).sin().sum()

    weights = dict(layer.named_parameters())
    each = vmap(grad(loss), in_dims=(None, 0, 0))(weights, x, mask)
    for row in range(3):
        right = torch.autograd.grad(
            loss(weights, x[row], mask[row]), list(weights.values()), materialize_grads=True
        )
        for name_of, expected in zip(weights, right, strict=True):
            torch.testing.assert_close(each[name_of][row], expected)


@pytest.mark.parametrize(("name", "options", "more"), LAYERS, ids=str)
def test_a_forward_derivative_through_a_layer(
    name: str, options: dict[str, Any], more: dict[str, Any]
) -> None:
    layer = make_layer(name, options, more)
    x, along, weight = torch.randn(3, 2, N, HEADS * DIM, dtype=torch.float64)
    tangent = jvp(layer, (x,), (along,))[1]
    back = vjp(layer, x)[1](weight)[0]
    torch.testing.assert_close((tangent * weight).sum(), (along * back).sum())


@pytest.mark.parametrize(("name", "options", "more"), LAYERS, ids=str)
def test_a_gradient_penalty_trains_a_layer(
    name: str, options: dict[str, Any], more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make_layer(name, options, more)
    mask = draw(3)[3]
    x = torch.randn(3, N, HEADS * DIM, dtype=torch.float64, requires_grad=True)

    def penalty() -> tuple[Tensor, ...]:
        score = (layer(x, key_padding_mask=mask) * mask[:, :, None]).sum()
        (slope,) = torch.autograd.grad(score, x, create_graph=True)
        return torch.autograd.grad(
            slope.square().sum(), list(layer.parameters()), materialize_grads=True
        )

    ours = penalty()
    layer.projection_order = "features_first"
    monkeypatch.setattr(type(layer.attention), "attend", type(layer.attention).reference)
    for found, right in zip(ours, penalty(), strict=True):
        torch.testing.assert_close(found, right)


@pytest.mark.parametrize("name", ["linformer", "performer"])
def test_an_ensemble_of_layers(name: str) -> None:
    """Each has parameters, or features, of its own."""
    options = {"seq_len": 8, "rank": 4} if name == "linformer" else {"num_features": 8}
    layers = [make_layer(name, options, {}) for _ in range(2)]
    x = torch.randn(3, N, HEADS * DIM, dtype=torch.float64)
    out = vmap(lambda held: functional_call(layers[0], held, (x,)))(
        {**stack_module_state(layers)[0], **stack_module_state(layers)[1]}  # type: ignore[arg-type]
    )
    for found, layer in zip(out, layers, strict=True):
        torch.testing.assert_close(found, layer(x))


DROPPING = [case for case in CASES if case[0] in ("longformer", "bigbird", "linformer")]


@pytest.mark.parametrize(("name", "options"), DROPPING, ids=str)
def test_dropout_is_as_vmap_was_asked_and_the_same_in_both_passes(
    name: str, options: dict[str, Any]
) -> None:
    module = build(name, options, dropout_p=0.5)
    q, k, v, _ = draw(1)
    same = torch.stack([q, q, q])

    def run(q: Tensor) -> Tensor:
        out: Tensor = module(q, k, v)
        return out

    with pytest.raises(RuntimeError, match="randomness"):
        vmap(run)(same)
    first, second, _ = vmap(run, randomness="same")(same)
    assert torch.equal(first, second)
    first, second, _ = vmap(run, randomness="different")(same)
    assert not torch.equal(first, second)
    out, back = vjp(lambda v: module(q, k, v), v)  # linear in v, given the weights
    module.eval()
    weight = torch.randn_like(out)
    torch.testing.assert_close((back(weight)[0] * v).sum(), (out * weight).sum())


def test_a_backend_without_attention_hands_zeros_to_queries() -> None:
    q, k, v, _ = draw()
    module = IdentityAttention(num_heads=HEADS, head_dim=DIM)
    of_q, of_v = grad(lambda q, v: module(q, k, v).square().sum(), argnums=(0, 1))(q, v)
    torch.testing.assert_close(of_q, torch.zeros_like(q))
    torch.testing.assert_close(of_v, 2 * v)


def test_a_plug_in_with_decisions_on_the_host_says_so_and_is_served() -> None:
    class Deciding(type(build("full", {}))):  # type: ignore[misc]
        def attend(self, q: Tensor, k: Tensor, v: Tensor, **asked: Any) -> Tensor:
            return super().attend(-q if bool(q.sum() > 0) else q, k, v, **asked)

    module = Deciding(num_heads=HEADS, head_dim=DIM)
    q, k, v, _ = draw()
    with pytest.raises(RuntimeError, match="data-dependent"):
        vmap(lambda q: module(q[None], k[:1], v[:1]))(q)
    module.whole_in_transforms = True
    assert vmap(lambda q: module(q[None], k[:1], v[:1]))(q).shape == (2, 1, HEADS, N, DIM)
