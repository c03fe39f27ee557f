"""Models over two ranks without flags train as in one process; single layers: test_composes."""

from __future__ import annotations

import pytest
import torch
import training_ranks
from helpers_ranks import run_ranks
from torch import Tensor
from training_ranks import CASES, RANKS

Found = list[dict[tuple[str, str, bool], dict[str, Tensor]]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Return the parameters that each rank ended with; they run once, in their own processes."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(training_ranks.__file__, RANKS, folder)
    return [torch.load(folder / f"found-{rank}.pt") for rank in range(RANKS)]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(x) for x in case))
def test_two_ranks_train_as_one_process_does(found: Found, case: tuple[str, str, bool]) -> None:
    expected = training_ranks.alone(*case[1:])
    for ours in found:
        torch.testing.assert_close(ours[case], expected, rtol=1e-9, atol=1e-12)


def test_parameters_of_no_use_in_a_call_still_get_no_gradient() -> None:
    model = training_ranks.build("longformer")
    ids, _ = training_ranks.batch(0, 0, globals_there=False)
    model(ids).sum().backward()
    bare = {name for name, p in model.named_parameters() if p.grad is None}
    assert bare == {n for n, _ in model.named_parameters() if ".call_projections." in n}
