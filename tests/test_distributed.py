"""Training over two ranks without flags: equal to one process on both batches."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import training_ranks
from torch import Tensor
from training_ranks import CASES, RANKS

Found = list[dict[tuple[str, str, bool], dict[str, Tensor]]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Return the parameters that each rank ended with; they run once, in their own processes."""
    folder = tmp_path_factory.mktemp("ranks")
    env = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, training_ranks.__file__, str(rank), str(folder)],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(RANKS)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=200)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert [process.returncode for process in ranks] == [0] * RANKS, "\n".join(said)
    return [torch.load(folder / f"found-{rank}.pt") for rank in range(RANKS)]


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
