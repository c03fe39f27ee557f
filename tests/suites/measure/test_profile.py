from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from suites.measure import profile
from suites.measure.profile import profiled
from suites.measure.profile_events import Event, Product, part_of, sort_events
from suites.measure.roofs import Repeated

A, B, C = torch.randn(3, 8, 5), torch.randn(3, 5, 7), torch.randn(3, 8, 7)
X, Y = torch.randn(5), torch.randn(8)


def at_once(*_: object, **__: object) -> list[SimpleNamespace]:
    """Stand in for the samples of a product alone."""
    return [SimpleNamespace(samples=[1e-6])]


def told(call: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setattr(profile, "sample_in_turn", at_once)
    with torch.inference_mode():
        return profiled(
            Repeated(call), "cpu", kernel="", dtype=torch.float32, budget_s=0.0, seed=0
        )


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("products", "mm bmm baddbmm addmm_ mv dot"),
        (
            "fused",
            "_scaled_dot_product_flash_attention_for_cpu _flash_attention_backward "
            "_scaled_dot_product_efficient_attention_backward _efficient_attention_forward "
            "_cudnn_attention_forward",
        ),
        ("exponentials", "exp_ exp2 _softmax logsumexp"),
        ("copies", "copy_ cat fill_ _index_put_impl_ index"),
        ("passes", "add_ _softmax_backward_data masked_fill_ sum"),
        ("between", "view as_strided empty matmul _scaled_dot_product_attention_math"),
    ],
)
def test_operators_are_sorted_by_their_names(part: str, names: str):
    assert {part_of(f"aten::{name}") for name in names.split()} == {part}


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("fused", "xformers_flash::flash_fwd"),
        ("compiled", "Torch-Compiled Region: 0/0"),
        ("compiled", "CompiledFunctionBackward"),
        ("compiled", "triton_poi_fused_add_0"),
        ("between", "autograd::engine::evaluate_function: BmmBackward0"),
        ("between", "ScaledDotProductFlashAttentionForCpuBackward0"),
        ("between", "_TiledBackward"),
        ("between", "detach"),
    ],
)
def test_events_outside_of_aten_are_mostly_between(part: str, name: str):
    assert part_of(name) == part


def test_nested_events_count_once_by_their_own_time():
    copy = Event("aten::copy_", 3.0, ((4, 4),))
    inner = Event("aten::_softmax", 2.0, ((2, 3, 4), ()))
    outer = Event("aten::softmax", 0.5, ((2, 3, 4),), children=(copy, inner))
    node = Event("SoftmaxBackward0", 9.0, children=(outer,))
    found = sort_events([node])
    assert set(found.parts) == {"copies", "exponentials"}
    assert found.parts["copies"].seconds == 3.0
    both = found.parts["exponentials"]
    assert (both.seconds, both.calls, both.operations) == (2.5, 1, 24)


def test_products_are_gathered_by_shape_and_dtype():
    shapes = ((2, 3, 5), (2, 3, 4), (2, 4, 5))
    half = Event("aten::baddbmm", 1.0, shapes, ("c10::Half",) * 3)
    whole = Event("aten::bmm", 2.0, shapes[1:], ("float",) * 2)
    unknown = Event("aten::mm", 4.0, ())
    found = sort_events([half, whole, whole, unknown])
    texts = {p.shown(torch.float32) for p in found.products}
    assert texts == {"2 x [3, 4] @ [4, 5]", "2 x [3, 4] @ [4, 5] float16"}
    assert {p.dtype: s.calls for p, s in found.products.items()} == {"c10::Half": 1, "float": 2}
    assert found.parts["products"].seconds == 9.0
    assert found.parts["products"].operations == 3 * 2 * 2 * 3 * 4 * 5


def test_no_kernel_of_a_gpu_lies_between():
    kernels = [Event("_MyKernel", 1.0), Event("aten::matmul", 2.0), Event("aten::view", 0.0)]
    found = sort_events(kernels, on_device=True)
    assert {part: share.seconds for part, share in found.parts.items()} == {
        "compiled": 1.0, "passes": 2.0,
    }  # fmt: skip
    assert not sort_events(kernels).parts


PRODUCTS: list[tuple[Callable[[], object], tuple[int, ...]]] = [
    (lambda: torch.mm(A[0], B[0]), (1, 8, 5, 7)),
    (lambda: torch.bmm(A, B, out=C), (3, 8, 5, 7)),
    (lambda: torch.addmm(C[0], A[0], B[0]), (1, 8, 5, 7)),
    (lambda: C[0].addmm_(A[0], B[0]), (1, 8, 5, 7)),
    (lambda: torch.baddbmm(C, A, B), (3, 8, 5, 7)),
    (lambda: C.baddbmm_(A, B), (3, 8, 5, 7)),
    (lambda: torch.mv(A[0], X), (1, 8, 5, 1)),
    (lambda: torch.addmv(Y, A[0], X), (1, 8, 5, 1)),
    (lambda: torch.dot(X, X), (1, 1, 5, 1)),
    (lambda: torch.einsum("bij,bjk->bik", A, B), (3, 8, 5, 7)),
    (lambda: torch.nn.functional.linear(A, B[0].mT), (1, 24, 5, 7)),
]


def test_operations_of_every_product_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(profile, "SHARE", 0.0)
    found = told(lambda: [call() for call, _ in PRODUCTS], monkeypatch)
    expected = Counter(shape for _, shape in PRODUCTS)
    assert {p["shape"]: (p["calls"], p["operations"]) for p in found["products"]} == {
        f"{batch} x [{n}, {k}] @ [{k}, {m}]": (count, count * 2 * batch * n * k * m)
        for (batch, n, k, m), count in expected.items()
    }
    total = sum(product["operations"] for product in found["products"])
    assert found["parts"]["products"]["operations"] == total


def test_a_batch_that_is_summed_up_counts_its_products_once(monkeypatch: pytest.MonkeyPatch):
    parts = told(lambda: torch.addbmm(C[0], A, B), monkeypatch)["parts"]
    assert parts["products"]["calls"] == 3
    assert parts["products"]["operations"] == 3 * 2 * 8 * 5 * 7


def test_parts_of_a_call_fill_it(monkeypatch: pytest.MonkeyPatch):
    def call() -> torch.Tensor:
        weights = torch.softmax(A @ B, dim=-1)
        return torch.cat([weights, weights]).exp_().sum()

    found = told(call, monkeypatch)
    parts = found["parts"]
    assert found["calls"] == profile.MIN_CALLS
    assert {name for name, part in parts.items() if part["calls"]} == {
        "products", "exponentials", "copies", "passes",
    }  # fmt: skip
    assert parts["exponentials"]["operations"] == 3 * 8 * 7 + 6 * 8 * 7
    assert parts["copies"]["operations"] is None
    total = sum(part["seconds"] for part in parts.values())
    assert total == pytest.approx(found["seconds"])


def test_the_fastest_call_is_kept(monkeypatch: pytest.MonkeyPatch):
    spent = iter([5.0, 2.0, 3.0])
    monkeypatch.setattr(profile, "_seconds", lambda timed, device: next(spent))
    found = told(lambda: None, monkeypatch)
    assert (found["calls"], found["seconds"]) == (3, 2.0)
    assert found["parts"]["between"]["seconds"] == 2.0
    assert found["products"] == []


@pytest.mark.parametrize(
    ("each", "budget_s", "calls"), [(1.0, 0.5, 3), (1.0, 5.0, 5), (0.001, 5.0, 8)]
)
def test_calls_are_as_many_as_the_budget_holds(
    each: float, budget_s: float, calls: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(profile, "_seconds", lambda timed, device: each)
    work = Repeated(lambda: None)
    found = profiled(work, "cpu", kernel="", dtype=torch.float32, budget_s=budget_s, seed=0)
    assert found["calls"] == calls


def test_only_shapes_of_weight_are_listed_the_longest_first(monkeypatch: pytest.MonkeyPatch):
    events = [
        Event("aten::mm", seconds, ((n, 2), (2, 2)))
        for n, seconds in [(1, 0.1), (2, 3.0), (3, 1.9), *((10 + i, 2.0) for i in range(9))]
    ]
    monkeypatch.setattr(profile, "_fastest_call", lambda *_: (3, 100.0, events))
    listed = told(lambda: None, monkeypatch)["products"]
    assert len(listed) == profile.MOST_SHAPES
    assert listed[0]["shape"] == "1 x [2, 2] @ [2, 2]"
    assert {product["seconds"] for product in listed[1:]} == {2.0}


def test_a_product_that_is_too_large_is_not_repeated(monkeypatch: pytest.MonkeyPatch):
    shapes = ((8, 65536, 64), (8, 64, 65536))
    event = Event("aten::bmm", 1.0, shapes)
    monkeypatch.setattr(profile, "_fastest_call", lambda *_: (3, 1.0, [event]))
    (product,) = told(lambda: None, monkeypatch)["products"]
    assert product["alone"] is None
    assert product["operations"] == Product(8, 65536, 64, 65536).operations


@pytest.mark.parametrize("kernel", ["tiled_band", "tiled_band+onednn"])
def test_products_are_repeated_on_the_library_of_the_kernel(
    kernel: str, monkeypatch: pytest.MonkeyPatch
):
    entered: list[torch.dtype] = []

    @contextmanager
    def full_rate(like: torch.Tensor) -> Iterator[None]:
        entered.append(like.dtype)
        yield

    event = Event("aten::mm", 1.0, ((8, 4), (4, 2)), ("c10::BFloat16",) * 2)
    monkeypatch.setattr(profile, "_fastest_call", lambda *_: (3, 1.0, [event]))
    monkeypatch.setattr(profile, "full_rate", full_rate)
    monkeypatch.setattr(profile, "sample_in_turn", at_once)
    found = profiled(
        Repeated(lambda: None), "cpu", kernel=kernel, dtype=torch.float32, budget_s=0.0, seed=0
    )
    assert found["products"][0]["alone"] > 0
    assert entered == [torch.bfloat16] * kernel.endswith("+onednn")
