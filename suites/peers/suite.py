"""Suite peers: other libraries beside our counterparts. No torch.

A child says which peers there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import click
from click import Option

from results.schema import ALLOCATORS, CALL_MODES, PEER, PROJECTIONS, Arm, Case, Mode
from suites.names import peers as peer_names
from suites.parameters import Several, any_of
from suites.speed.presets import PRESETS, Preset
from suites.suite import Plan, Suite, listed
from suites.words import measured

NOT_OF_PEERS = (
    "choices", "backends", "levels", "memory_lengths", "models", "precision", "within_s",
)  # fmt: skip
"""Fields of a preset that say nothing of peers."""


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
    names = list(dict.fromkeys(row.peer for row in rows))
    for name in peers:
        if name not in names:
            raise ValueError(f"peers: no peer {name!r}; there are {', '.join(names)}")
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


USUAL = Preset((), ("forward", "training"), launches=3, budget_s=1.0, case_timeout_s=300.0)
"""Where no preset is named: every row has a length of its own."""


@dataclass(frozen=True, kw_only=True)
class PeersPlan(Plan):
    """A sweep of suite peers; `backends` are our sides, with options in place of a row's own.

    Attributes:
        modes: of each length.
        peers: names; empty = all that run on the device.
        rows: as chosen; empty = not asked for yet.
    """

    modes: tuple[Mode, ...]
    peers: tuple[str, ...] = ()
    rows: tuple[PeerRow, ...] = ()


class PeersSuite(Suite[PeersPlan]):
    """What other libraries cost, each beside our counterpart on the same inputs and weights."""

    name = "peers"
    kind = "peer"
    summary = "other libraries compared with ours, on the same inputs and weights"
    examples = (
        "attnbench run peers --out runs/peers",
        "attnbench run peers --peers linformer,local-attention --seq-len 1024,4096",
    )
    presets = PRESETS
    takes = frozenset(
        {"backends", "seq_lens", "modes", "dtypes", "batches", "num_heads", "head_dims",
         "is_causal", "allocators", "matmul_precisions", "compiles"}
    )  # fmt: skip
    refusals: Mapping[str, str] = {
        "levels": "set by the peer: layer if it has projections, else attention"
    }
    helps: Mapping[str, str] = {
        "backends": "Our side, with options in place of a peer's own. Repeatable.",
        "is_causal": "The causal rows alone.",
    }
    defaults: Mapping[str, str] = {
        "preset": "a length of each peer's own",
        "seq_lens": "each peer's own",
        "modes": listed(USUAL.modes),
        "allocators": f"{listed(ALLOCATORS)} on a CPU",
        "launches": f"{USUAL.launches}",
        "budget_s": f"{USUAL.budget_s:g}",
        "case_timeout_s": f"{USUAL.case_timeout_s:g}",
    }
    options = (
        Option(
            ["--peers"],
            type=Several(click.STRING),
            shell_complete=any_of(peer_names),
            metavar="NAME,…",
            show_default="all that run on the device",
            help="See `attnbench list --peers`.",
        ),
    )

    def plan(self, preset: str | None, chosen: Mapping[str, Any]) -> PeersPlan:
        """Return the sweep of a preset and options; a preset gives the lengths."""
        device = chosen.get("device", PeersPlan.device)
        taken = USUAL if preset is None else self.preset(preset)
        fields = taken.fields(device, but=NOT_OF_PEERS)
        if device == "cpu":
            fields["allocators"] = ALLOCATORS
        plan = PeersPlan(suite=self, **{**fields, **chosen})
        if not set(plan.modes) <= set(CALL_MODES):
            raise ValueError("mode: peers are measured in forward and training; got decode")
        return plan

    def is_complete(self, plan: PeersPlan) -> bool:
        """Say whether the rows are known."""
        return False

    def completed(self, plan: PeersPlan, told: Mapping[str, Any]) -> PeersPlan:
        """Return a sweep with the rows that it asks for, of those that a child tells of."""
        rows = choose_rows(
            [PeerRow.from_json(row) for row in told["peers"]],
            peers=plan.peers,
            backends=plan.backends,
            is_causal=plan.is_causal,
            device=plan.device,
        )
        return replace(plan, rows=rows)

    def cases(self, plan: PeersPlan) -> list[Case]:
        """Return a case per row and point of the axes: ours, the peer, its projections."""
        return [
            Case(
                kind="peer",
                level="layer" if row.num_projections else "attention",
                mode=mode,
                arms=row.arms,
                is_causal=row.is_causal,
                **point,
            )
            for row in plan.rows
            for mode in plan.modes
            for point in plan.points(plan.seq_lens or (row.seq_lens[mode],))
        ]

    def arms_label(self, case: Case) -> str:
        """Name our arm and the peer."""
        return f"{case.arms[0].label} and {case.arms[1].name.removeprefix(PEER)}"

    def describe(self, record: Mapping[str, Any]) -> str:
        """Write what ours took, and what the peer did."""
        ours, peer = (measured(arm["metrics"]) for arm in record["arms"][:2])
        return f"ours {ours}, theirs {peer}"


SUITE = PeersSuite()
