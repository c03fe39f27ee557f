"""What the driver asks before a sweep: the machine, and what each case would be.

Nothing is measured and nothing large is allocated: backends are built on torch's meta device.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from attention import registry
from attention.base import Attention, UnsupportedError
from attention.plugins import import_files, loaded
from results.schema import CLAIM, CONTEXT, MEASUREMENT, SENTINEL, TRAINING_KINDS, Case
from suites.arms.build import Mixer, check_case, expected_exponents
from suites.arms.levels import build_light, cost_of, unsupported_reasons
from suites.arms.transformers_model import files_given
from suites.claims.kind import check_claim
from suites.context_parallel.kind import check_context
from suites.error.kind import check_inputs, unsupported_inputs
from suites.measure.machine import environment, machine
from suites.peers import registry as peers
from suites.peers.kind import cost_beside, peer_of
from suites.quantized.kind import inspect as inspect_quantized
from suites.tasks import registry as tasks
from suites.training.prepare import inspect as inspect_training


def preflight(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a preflight request.

    Args:
        request: ``cases``, as the records hold them, ``plugins``, files to import, and
            ``files``, a content's name to its path.

    Returns:
        ``measurement`` (the version of the measuring code), ``machine``, ``environment``
        (with ``plugins``, as `attention.plugins.loaded` tells, where there are any), ``names``
        (the registered backends), ``peers`` (see `suites.peers.registry.describe`), ``broken``
        (path to reason, of the files that cannot be used) and ``cases``: by id ``misuse`` (one
        line, or ``None``), ``unsupported`` (reasons of the first arm and of a peer), ``cost`` (one
        per arm; ``None`` where it cannot be told), ``time_exponent``, ``memory_exponent``.
    """
    broken = import_files(request.get("plugins", []))
    files = {name: Path(path) for name, path in (request.get("files") or {}).items()}
    cases = [Case.from_json(data) for data in request["cases"]]
    with files_given(files):
        told = {case.id: inspect_case(case, files) for case in cases}
    names, described, _ = registry.names(), peers.describe(), tasks.names()
    plugins = loaded()  # by now all that are installed too
    return {
        "measurement": MEASUREMENT,
        "machine": machine(),
        "environment": environment() | ({"plugins": plugins} if plugins else {}),
        "names": names,
        "peers": described,
        "broken": broken,
        "cases": told,
    }


def inspect_case(case: Case, files: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """Say whether a case is well formed, whether it is supported here, and what it would cost."""
    told: dict[str, Any] = {
        "misuse": None,
        "unsupported": [],
        "cost": [None] * len(case.arms),
        "time_exponent": 0.0,
        "memory_exponent": 0.0,
    }
    if case.kind in ("roof", SENTINEL):
        if case.device == "cuda" and not torch.cuda.is_available():
            told["unsupported"] = ["device: torch sees no CUDA device here"]
        return told
    try:
        if case.kind in TRAINING_KINDS:
            inspect = inspect_quantized if case.kind == "quantized" else inspect_training
            inspect(case, files or {})
            return told
        if case.kind == CLAIM:
            check_claim(case)
            return told
        if case.kind == CONTEXT:
            _expect(check_context(case), replace(case, mode="training"), told)
            return told
        check_case(case)
        check_inputs(case)
        told["unsupported"] += unsupported_inputs(case)
        if case.kind == "peer":
            _inspect_peer(case, told)
            return told
        for index in range(len(case.arms)):
            _inspect_arm(case, index, told)
    except UnsupportedError as error:
        told["unsupported"].append(str(error))
    except (TypeError, ValueError) as error:
        told["misuse"] = " ".join(str(error).split()) or type(error).__name__
    except Exception:  # a backend's defect is no misuse: the case will fail, and say how
        traceback.print_exc(file=sys.stderr)
    return told


def _inspect_arm(case: Case, index: int, told: dict[str, Any]) -> None:
    mixer, module = build_light(case.arms[index], case)
    if index == 0:
        told["unsupported"] += unsupported_reasons(mixer, case)
        _expect(mixer, case, told)
    if not told["unsupported"]:
        told["cost"][index] = cost_of(mixer, module, case)


def _inspect_peer(case: Case, told: dict[str, Any]) -> None:
    """Tell of our arm as of any, and whether the peer can run beside it; its cost is unknown."""
    peer = peer_of(case)
    ours, _ = build_light(case.arms[0], replace(case, level="attention"))
    assert isinstance(ours, Attention)
    told["unsupported"] += unsupported_reasons(ours, case)
    told["unsupported"] += peer.unsupported_reasons(ours, case)
    _expect(ours, case, told)
    if not told["unsupported"]:
        told["cost"][0] = cost_beside(ours, case, peer)


def _expect(mixer: Mixer, case: Case, told: dict[str, Any]) -> None:
    for what, exponent in expected_exponents(mixer, case).items():
        told[f"{what}_exponent"] = exponent
