"""Find peers by name: those in ``suites/peers/libraries/``, installed plug-ins, named files.

A peer registers itself with the decorator `register`. Modules in ``suites/peers/libraries/`` are
imported on demand; plug-ins are installed distributions with an entry point in the group
``attnbench.peers`` whose value is a module that registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from attention.plugins import Registry
from results.schema import CALL_MODES, DEVICES, PEER
from suites.peers.base import Peer

P = TypeVar("P", bound=Peer)

ENTRY_POINT_GROUP = "attnbench.peers"

_registry: Registry[Peer] = Registry(
    "peer",
    argument="peers",
    package="suites.peers.libraries",
    group=ENTRY_POINT_GROUP,
    blames_all=True,
)

names, broken_plugins = _registry.names, _registry.broken_plugins


def register(name: str) -> Callable[[type[P]], type[P]]:
    """Make a class known under `name`.

    Raises:
        ValueError: if ``--peers`` could not take the name, another class has it, or the class
            says not, or says twice, whether it computes the same function.
    """

    def add(cls: type[P]) -> type[P]:
        if cls.same_function == bool(cls.difference):
            raise ValueError(
                f"difference: expected what differs, or same_function = True; {name} has "
                f"same_function = {cls.same_function}, difference = {cls.difference!r}"
            )
        return _registry.register(name)(cls)

    return add


def get(name: str) -> Peer:
    """Return the peer registered under `name`.

    Raises:
        ValueError: if there is none; the message names the near ones and all.
    """
    return _registry.find(name)()


def of_arm(arm_name: str) -> Peer:
    """Return the peer that an arm of a case names: ``peer:performer-pytorch``.

    Raises:
        ValueError: if the arm names no peer.
    """
    if not arm_name.startswith(PEER):
        raise ValueError(f"arms: expected {PEER}NAME beside our backend, got {arm_name!r}")
    return get(arm_name.removeprefix(PEER))


def describe() -> list[dict[str, Any]]:
    """Return what the suite measures, as plain values: a row per peer and causality.

    Keys: ``peer``, ``is_causal``, ``is_default`` (measured where no option says otherwise),
    ``devices``, ``counterpart``, ``options``, ``num_projections``,
    ``subtracts_projections``, ``seq_lens`` (by mode).
    """
    rows = []
    for peer in (get(name) for name in names()):
        for is_causal in (False, True):
            rows.append(
                {
                    "peer": peer.name,
                    "is_causal": is_causal,
                    "is_default": is_causal in peer.rows,
                    "devices": list(peer.devices),
                    "counterpart": peer.counterpart,
                    "options": dict(peer.options),
                    "num_projections": peer.num_projections,
                    "subtracts_projections": peer.subtracts_projections,
                    "seq_lens": {
                        mode: peer.seq_len(mode, is_causal=is_causal)  # type: ignore[arg-type]
                        for mode in CALL_MODES
                    },
                }
            )
    return rows


def catalogue() -> list[dict[str, Any]]:
    """Return what every peer declares, and whether it can run here, as plain values.

    Keys: ``name``, ``summary``, ``project``, ``install``, ``counterpart``, ``options``,
    ``num_projections``, ``same_function``, ``difference``, ``causal``, ``modes``, ``unavailable``
    (device to reasons; an empty list = available). The libraries are imported.
    """
    plain = (
        "name", "summary", "project", "install", "counterpart", "num_projections",
        "same_function", "difference", "causal",
    )  # fmt: skip
    return [
        {
            **{key: getattr(peer, key) for key in plain},
            "options": dict(peer.options),
            "modes": list(peer.modes),
            "unavailable": {d: peer.unavailable_reasons(d) for d in DEVICES},
        }
        for peer in map(get, names())
    ]
