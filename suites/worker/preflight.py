"""What the driver asks before a sweep: the machine, and what each case would be.

Nothing is measured and nothing large is allocated: backends are built on torch's meta device.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attention import registry
from attention.base import UnsupportedError
from attention.plugins import loaded
from results.schema import DEVICES, MEASUREMENT, Case
from suites.arms.transformers_config import files_given
from suites.kind import Inspection, Request
from suites.measure.machine import environment, machine
from suites.peers import registry as peers
from suites.tasks import registry as tasks
from suites.worker import kinds


def preflight(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a preflight request.

    Args:
        request: ``cases``, as the records hold them, and fields of `suites.kind.Request`.

    Returns:
        ``measurement`` (the version of the measuring code), ``machine``, ``environment``
        (with ``plugins``, as `attention.plugins.loaded` tells, where there are any), ``names``
        (the registered backends), ``unavailable`` (by device, of those that cannot run there,
        name to reason), ``peers`` (see `suites.peers.registry.describe`), ``broken``
        (path to reason, of the plug-ins that cannot be used) and ``cases``: by id ``misuse`` (one
        line, or ``None``) and the fields of `suites.kind.Inspection`.
    """
    settings = Request.from_json(request)
    broken = kinds.import_plugins(settings.plugins)
    cases = [Case.from_json(data) for data in request["cases"]]
    inspected = {case.id: inspect_case(case, settings.files) for case in cases}
    names, described, _ = registry.names(), peers.describe(), tasks.names()
    plugins = loaded() | kinds.loaded()  # by now all that are installed too
    return {
        "measurement": MEASUREMENT,
        "machine": machine(),
        "environment": environment() | ({"plugins": plugins} if plugins else {}),
        "names": names,
        "unavailable": {device: _unavailable(names, device) for device in DEVICES},
        "peers": described,
        "broken": broken,
        "cases": inspected,
    }


def _unavailable(names: Sequence[str], device: str) -> dict[str, str]:
    """Return the backends that cannot run on a device of this machine, with the reason."""
    found = {}
    for name in names:
        try:
            reasons = registry.get(name).unavailable_reasons(device)
        except Exception:  # a backend's defect: its cases will fail, and say how
            traceback.print_exc(file=sys.stderr)
            continue
        if reasons:
            found[name] = "; ".join(reasons)
    return found


def inspect_case(case: Case, files: Mapping[str, Path] | None = None) -> dict[str, Any]:
    """Say whether a case is well formed, whether it is supported here, and what it would cost."""
    inspection, misuse = Inspection(), None
    request = Request(files=files or {})
    try:
        with files_given(request.files):
            inspection = kinds.find(case.kind).inspect(case, request)
    except UnsupportedError as error:
        inspection.unsupported.append(str(error))
    except (TypeError, ValueError) as error:
        misuse = " ".join(str(error).split()) or type(error).__name__
    except Exception:  # a backend's defect is no misuse: the case will fail, and say how
        traceback.print_exc(file=sys.stderr)
    inspection.cost += [None] * (len(case.arms) - len(inspection.cost))
    return {"misuse": misuse, **asdict(inspection)}
