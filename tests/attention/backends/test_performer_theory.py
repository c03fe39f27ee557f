"""Performer against its theory: Choromanski et al. 2021, arXiv 2009.14794.

The estimator of the softmax kernel ``SM(x, y) = exp(x·y)`` is read off what the backend itself
returns. The key ``-x`` is estimated without error, ``exp(ω·(x - x) - |x|²) = exp(-|x|²)``
whatever ω is; so with the keys y and -x, the values 1 and 0, and scores that are not scaled,

    out = estimate / (estimate + exp(-|x|²)),    estimate = exp(-|x|²) · out / (1 - out).

Bounds come from the theory's own moments; a test's seeds are fixed, so none of them fails by
chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from torch import Tensor

from attention.backends.performer import PerformerAttention
from attention.functional import exact_attention_rows, relative_l2

SIGMAS = 4.0
"""How far a mean or a variance may be from the theory, in its standard deviations."""

DRAWS = 3000

PAIRS = {
    "aligned": (0.25, 0.25, 1.0),
    "across": (0.5, 0.4, 0.0),
    "opposed": (0.6, 0.3, -0.8),
}
"""|x|, |y| and the cosine of their angle."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices this small only wait for a second one
    yield
    torch.set_num_threads(threads)


def pair(name: str, dim: int) -> tuple[Tensor, Tensor]:
    """Return x and y ``[D]`` of the given lengths and angle, in no special direction."""
    a, b, cosine = PAIRS[name]
    basis = torch.linalg.qr(torch.randn(dim, 2, dtype=torch.float64)).Q.T
    return a * basis[0], b * (cosine * basis[0] + math.sqrt(1 - cosine**2) * basis[1])


@cache
def estimates_of_all(
    dim: int, count: int, orthogonal: bool, kernel: str = "auto", draws: int = DRAWS
) -> Tensor:
    """Estimate SM(x, y) of every pair with so many draws, through the backend: ``[draws, P]``."""
    torch.manual_seed(0)
    x, y = (torch.stack(side) for side in zip(*(pair(n, dim) for n in PAIRS), strict=True))
    module = PerformerAttention(
        num_heads=1, head_dim=dim, num_features=count, orthogonal=orthogonal, seed=1,
        kernel=kernel, scale=1.0,
    ).double()  # fmt: skip
    q, k = x[:, None, None], torch.stack([y, -x], dim=1)[:, None]  # a pair is a batch row
    v = torch.tensor([1.0, 0.0], dtype=torch.float64)[None, None, :, None].expand(k.shape)
    outs = []
    for _ in range(draws):
        outs.append(module(q, k, v)[:, 0, 0, 0])
        module.redraw()
    out = torch.stack(outs)
    return torch.exp(-(x * x).sum(dim=1)) * out / (1 - out)


def estimates(name: str, dim: int, count: int, orthogonal: bool) -> Tensor:
    """Estimate SM(x, y) of one pair with `DRAWS` draws."""
    return estimates_of_all(dim, count, orthogonal)[:, list(PAIRS).index(name)]


def theory(name: str) -> tuple[float, float, float]:
    """Return SM(x, y), |x + y|² and ``exp(-(|x|² + |y|²)/2)``."""
    a, b, cosine = PAIRS[name]
    return (
        math.exp(a * b * cosine),
        a * a + b * b + 2 * a * b * cosine,
        math.exp(-(a * a + b * b) / 2),
    )


def lemma_2(name: str, count: int) -> float:
    """Return the mean squared error of independent features: ``exp(|z|²)SM²(1 - exp(-|z|²))/m``.

    z is x + y. A summand is ``exp(ω·z - (|x|² + |y|²)/2)``, log-normal, with the mean SM.
    """
    sm, z2, _ = theory(name)
    return math.exp(z2) * sm**2 * (1 - math.exp(-z2)) / count


def orthogonal_error(name: str, dim: int, count: int) -> float:
    """Return the mean squared error of m ≤ D orthogonal features exactly.

    Each two features add the covariance of ``exp(ω₁·z)`` and ``exp(ω₂·z)``. Along z the two have
    the coordinates r₁u₁ and r₂u₂, u two coordinates of a uniform unit vector and r lengths of
    Gaussian vectors, so with ``t = |z|²/2`` and rising factorials ``(d/2)ᵢ`` the covariance is
    ``Σ tⁱ⁺ʲ/(i!j!)·((d/2)ᵢ(d/2)ⱼ/(d/2)ᵢ₊ⱼ - 1)``.
    """
    _, z2, falling = theory(name)
    t, half = z2 / 2, dim / 2

    def rising(n: int) -> float:
        return math.gamma(half + n) / math.gamma(half)

    covariance = sum(
        t ** (i + j)
        / (math.factorial(i) * math.factorial(j))
        * (rising(i) * rising(j) / rising(i + j) - 1)
        for i in range(1, 20)
        for j in range(1, 20)
    )
    return lemma_2(name, count) + (count - 1) / count * falling**2 * covariance


def theorem_2(name: str, dim: int, count: int) -> float:
    """Return by how much orthogonal features are better at least, for m ≤ D."""
    sm, _, falling = theory(name)
    return 2 * (count - 1) / (count * (dim + 2)) * (sm - falling) ** 2


def spread_of_error(name: str, count: int) -> float:
    """Return the relative standard deviation of a mean squared error over `DRAWS` draws.

    From the fourth moment of a mean of `count` log-normal summands: its kurtosis is
    ``3 + (e^4s + 2e^3s + 3e^2s - 6)/m`` with ``s = |x + y|²``.
    """
    _, s, _ = theory(name)
    excess = (math.exp(4 * s) + 2 * math.exp(3 * s) + 3 * math.exp(2 * s) - 6) / count
    return math.sqrt((2 + excess) / DRAWS)


@pytest.mark.slow
@pytest.mark.parametrize("orthogonal", [True, False])
@pytest.mark.parametrize("name", PAIRS)
def test_the_estimate_of_the_softmax_kernel_has_no_bias(name: str, orthogonal: bool) -> None:
    mean = float(estimates(name, 8, 8, orthogonal).mean())
    # Lemma 2 bounds orthogonal features as well: by theorem 2 their error is smaller.
    bound = SIGMAS * math.sqrt(lemma_2(name, 8) / DRAWS)
    assert abs(mean - theory(name)[0]) < bound
    assert bound < 0.05 * theory(name)[0]  # it would tell a bias of a few hundredths


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("count", [1, 8, 24])
def test_independent_features_have_the_error_of_lemma_2(name: str, count: int) -> None:
    error = float(((estimates(name, 8, count, False) - theory(name)[0]) ** 2).mean())
    expected = lemma_2(name, count)
    assert abs(error / expected - 1) < SIGMAS * spread_of_error(name, count)


@pytest.mark.parametrize("name", PAIRS)
def test_orthogonal_features_have_their_exact_error_and_keep_theorem_2(name: str) -> None:
    sm, expected = theory(name)[0], orthogonal_error(name, 8, 8)
    error = float(((estimates(name, 8, 8, True) - sm) ** 2).mean())
    slack = SIGMAS * spread_of_error(name, 8)
    assert abs(error / expected - 1) < slack
    assert expected <= lemma_2(name, 8) - theorem_2(name, 8, 8) < lemma_2(name, 8)


def test_orthogonal_features_vary_less_where_they_differ_most() -> None:
    sm = theory("aligned")[0]
    orthogonal, independent = (
        float(((estimates("aligned", 8, 8, choice) - sm) ** 2).mean()) for choice in (True, False)
    )
    allowed = lemma_2("aligned", 8) - theorem_2("aligned", 8, 8)
    spread = spread_of_error("aligned", 8)
    assert orthogonal < allowed * (1 + SIGMAS * spread)
    # The difference is beyond what chance makes of equal ones.
    assert (independent - orthogonal) / independent > 2 * spread


def test_stabilisers_cancel_in_either_kernel() -> None:
    tiled = estimates_of_all(8, 8, True, "tiled", 50)
    chunked = estimates_of_all(8, 8, True, "chunked", 50)
    torch.testing.assert_close(tiled, chunked, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("orthogonal", [True, False])
def test_the_error_of_attention_falls_with_the_root_of_the_features(orthogonal: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 192, 16, generator=generator) for _ in range(3))
    q, k = 0.3 * q, 0.3 * k  # few features of larger ones are far from the rate
    exact = exact_attention_rows(q.double(), k.double(), v.double())
    counts, seeds = (64, 128, 256, 512, 1024), 12
    logs = []
    for count in counts:
        squares = [
            relative_l2(
                PerformerAttention(
                    num_heads=2, head_dim=16, num_features=count, orthogonal=orthogonal, seed=seed
                )(q, k, v),
                exact,
            )
            ** 2
            for seed in range(seeds)
        ]
        logs.append(math.log(sum(squares) / seeds) / 2)  # of the root mean square
    x = torch.tensor(counts, dtype=torch.float64).log()
    y = torch.tensor(logs, dtype=torch.float64)
    x, y = x - x.mean(), y - y.mean()
    slope = float((x @ y) / (x @ x))
    assert -0.55 < slope < -0.45
    assert float((y - slope * x).abs().max()) < 0.15  # a line, not a curve of that mean slope


def test_the_options_draws_are_what_they_say() -> None:
    drawn = {
        choice: PerformerAttention(
            num_heads=1, head_dim=16, num_features=16, orthogonal=choice, seed=3
        )
        for choice in (True, False)
    }
    off = {}
    for choice, module in drawn.items():
        unit = torch.nn.functional.normalize(module.projection.double(), dim=1)
        off[choice] = float((unit @ unit.T - torch.eye(16)).abs().max())
    assert off[True] < 1e-6
    assert off[False] > 0.2
    assert drawn[True].shown() != drawn[False].shown()


@pytest.mark.parametrize("lengths", [(1.0, 1.0), (20.0, 200.0), (200.0, 20.0), (900.0, 1.0)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_the_reference_holds_keys_and_queries_of_any_length(
    lengths: tuple[float, float], is_causal: bool
) -> None:
    """Keys that grow or shrink along the sequence, beside a sum of logarithms, pair by pair.

    Where the longest stand first, causal queries see nothing else; where they stand last, padding
    hides the others. A query of length 900 spans more than float64.
    """
    n, dim, count = 24, 8, 16
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, 2, n, dim, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    k = k * torch.linspace(*lengths, n, dtype=torch.float64)[:, None]
    q = q * lengths[0] if lengths[1] == 1.0 else q
    mask = torch.ones(1, n, dtype=torch.bool)
    mask[0, : n // 2] = lengths[0] > lengths[1]
    modules = [
        PerformerAttention(
            num_heads=2, head_dim=dim, num_features=count, seed=3, kernel=kernel
        ).double()
        for kernel in ("tiled", "chunked")
    ]
    x, y = (t * dim**-0.25 for t in (q, k))
    omega = modules[0].projection
    features = x @ omega.T, y @ omega.T - y.square().sum(-1, keepdim=True) / 2
    logs = torch.logsumexp(features[0][..., None, :] + features[1][..., None, :, :], dim=-1)
    seen = mask[:, None, None].expand(1, 2, n, n)
    seen = seen.tril() if is_causal else seen
    weights = torch.softmax(logs.masked_fill(~seen, -torch.inf), dim=-1).nan_to_num(0.0)
    right = weights @ v
    call = {"is_causal": is_causal, "key_padding_mask": mask}
    torch.testing.assert_close(modules[0].reference(q, k, v, **call), right)
    rows = torch.tensor([0, 5, n - 1])
    some = modules[0].reference(q, k, v, **call, rows=rows)
    torch.testing.assert_close(some, right[:, :, rows])
    real = mask[:, None, :, None]
    for module in modules:
        torch.testing.assert_close(module(q, k, v, **call) * real, right * real)
