"""From peers to the rows of a sweep. No torch: a child says which peers there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from results.schema import PEER, PROJECTIONS, Arm


@dataclass(frozen=True)
class PeerRow:
    """A peer beside its counterpart, causal or not.

    Attributes:
        peer: its name.
        is_causal: of the calls.
        is_default: measured where no option says otherwise.
        devices: where the peer runs.
        ours: our arm.
        num_projections: 0, or how many the peer carries.
        subtracts_projections: whether those alone are an arm.
        seq_lens: by mode, where no option says otherwise, in tokens.
    """

    peer: str
    is_causal: bool
    is_default: bool
    devices: tuple[str, ...]
    ours: Arm
    num_projections: int
    subtracts_projections: bool
    seq_lens: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> PeerRow:
        """Read a row of a preflight record."""
        return cls(
            peer=told["peer"],
            is_causal=told["is_causal"],
            is_default=told["is_default"],
            devices=tuple(told["devices"]),
            ours=Arm(told["counterpart"], told["options"]),
            num_projections=told["num_projections"],
            subtracts_projections=told["subtracts_projections"],
            seq_lens=told["seq_lens"],
        )

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The arms of its cases."""
        alone = (Arm(PROJECTIONS),) if self.subtracts_projections else ()
        return (self.ours, Arm(f"{PEER}{self.peer}"), *alone)


def choose_rows(
    rows: Sequence[PeerRow],
    *,
    peers: Sequence[str],
    backends: Sequence[Arm],
    is_causal: bool,
    device: str,
) -> tuple[PeerRow, ...]:
    """Return the rows that the options ask for.

    Args:
        rows: all there are.
        peers: names; empty = all that run on `device`.
        backends: ours, with options in place of the row's; empty = every row's own.
        is_causal: the causal rows, whether or not the peer has a causal form; else those that
            a peer's own rows name.
        device: where it is measured.

    Raises:
        ValueError: if there is no such peer, a backend is no peer's counterpart, or no row is
            left.
    """
    known = list(dict.fromkeys(row.peer for row in rows))
    for name in peers:
        if name not in known:
            raise ValueError(f"peers: no peer {name!r}; there are {', '.join(known)}")
    counterparts = sorted({row.ours.name for row in rows})
    for arm in backends:
        if arm.name not in counterparts:
            raise ValueError(
                f"backend: {arm.name} is no peer's counterpart; expected one of "
                f"{', '.join(counterparts)}"
            )
    chosen = [
        row
        for row in rows
        if (row.peer in peers if peers else device in row.devices)
        and (row.is_causal if is_causal else row.is_default)
    ]
    if backends:
        chosen = [
            replace(row, ours=Arm(arm.name, {**row.ours.options, **arm.options}))
            for row in chosen
            for arm in backends
            if arm.name == row.ours.name
        ]
    if not chosen:
        raise ValueError("peers: no peer fits --backend, --peers and --device together")
    return tuple(chosen)
