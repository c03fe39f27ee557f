"""Check of values that are wider or narrower than keys."""

from __future__ import annotations

import itertools

import torch

from attention.problem import Problem
from attention.testing.bench import (
    BATCH,
    F64_BUDGET,
    Bench,
    NotAsked,
    assert_gradient,
    assert_matches,
    described,
    drawn,
)


def check_value_dim(bench: Bench) -> None:
    """Values wider or narrower than keys: output, gradients and decoding as the reference's."""
    if not bench.cls.supports.value_dim:
        raise NotAsked("value_dim is not declared")
    for call, width in itertools.product(bench.calls((65,)), (5, 24)):
        module = bench.build(call.k.shape[2]).to(torch.float64).eval()
        problem = Problem.of(call.q, call.k, is_causal=call.is_causal, value_dim=width)
        if module.unsupported_reasons(problem):
            continue
        q, k, v = call.leaves()
        v = torch.cat([v, v.flip(3)], dim=3)[..., :width].detach().requires_grad_()
        where = f"D_v={width} ({described(call)})"
        how = bench.show(
            call, f"v = torch.cat([v, v], 3)[..., :{width}]\nprint(m(q, k, v, **asks))"
        )
        outs = [
            function(q, k, v, **call.asks) * call.real for function in (module, module.reference)
        ]
        assert_matches(f"output at {where}", outs[0], outs[1], F64_BUDGET, how)
        weight = drawn(bench, outs[1])
        grads = [torch.autograd.grad(out, (q, k, v), weight) for out in outs]
        for name, ours, right in zip("qkv", *grads, strict=True):
            assert_gradient(f"gradient of {name} at {where}", ours, right, how)
        plain = call.is_causal and call.key_padding_mask is None and q.shape[2] == k.shape[2]
        if not (bench.cls.supports.state and plain):
            continue
        state = module.init_state(
            batch_size=BATCH, max_len=65, num_kv_heads=k.shape[1], value_dim=width,
            dtype=q.dtype, device=bench.device,
        )  # fmt: skip
        with torch.no_grad():
            parts = [
                module.prefill(q[:, :, at], k[:, :, at], v[:, :, at], state, **call.extra_at(at))
                for at in (slice(0, 40), slice(40, 64), slice(64, 65))
            ]
        assert_matches(f"decoded at {where}", torch.cat(parts, 2), outs[0], F64_BUDGET, how)
