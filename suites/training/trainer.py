"""The training loop: AdamW, warm-up and cosine, clipping, mixed precision, exact resume.

Every batch is a function of the seed and the step, and dropout is off: so a training that is
interrupted and resumed takes the very steps that it would have taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import LearnedPositions, TransformerModel
from suites.tasks.base import IGNORED, Batch, Task
from suites.training import checkpoint as checkpoints
from suites.training.plan import Plan

CHECKPOINT_S = 30.0
"""Seconds of training that a killed process may lose, at most."""

TELL_S = 1.0
"""Seconds between two words on how it goes."""

MOST_POINTS = 200
"""Points of a learning curve; beyond, two become one."""

BETAS = (0.9, 0.98)
"""Of AdamW. The second remembers 50 steps: a training here has hundreds, not 100,000."""

SYNC_STEPS = 8
"""Steps on a GPU between two readings of its clock and its loss."""


class DivergedError(RuntimeError):
    """The loss is no longer a number."""


@dataclass
class Curve:
    """A learning curve of at most `MOST_POINTS` points, each the mean over equally many steps.

    Attributes:
        step: the last step of each point, from 1.
        time: seconds of training until then.
        loss: nats a label, on the training batches.
    """

    step: list[int] = field(default_factory=list)
    time: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    width: int = 1
    _open: list[float] = field(default_factory=list)

    def add(self, step: int, seconds: float, loss: float) -> None:
        """Take in the loss of a step."""
        self._open.append(loss)
        if len(self._open) < self.width:
            return
        self.step.append(step)
        self.time.append(seconds)
        self.loss.append(sum(self._open) / len(self._open))
        self._open = []
        if len(self.step) >= MOST_POINTS:
            pairs = zip(self.loss[::2], self.loss[1::2], strict=True)
            self.loss = [(a + b) / 2 for a, b in pairs]
            self.step, self.time = self.step[1::2], self.time[1::2]
            self.width *= 2

    def to_json(self) -> dict[str, list[float]]:
        """Return the curve as the record holds it."""
        return {
            "step": list(self.step),
            "time": [round(t, 4) for t in self.time],
            "loss": [float(f"{x:.5g}") for x in self.loss],
        }


@dataclass
class Spent:
    """What a training has spent.

    Attributes:
        steps: taken.
        seconds: in them.
        operations: of the model, in steps of exact attention.
    """

    steps: int = 0
    seconds: float = 0.0
    operations: float = 0.0

    def of(self, plan: Plan) -> float:
        """Return the share of a plan's amount."""
        spent = {"steps": self.steps, "time": self.seconds, "operations": self.operations}
        return spent[plan.view] / plan.amount


class Trainer:
    """Trains one model on one task, as a plan says.

    Args:
        model: on its device, in float32.
        task: gives the batches.
        plan: the budget and the optimiser.
        batch: sequences a step.
        seed: of the batches.
        dtype: of the products; other than float32: by autocast, with float16's scaled gradients.
        step_operations: of one step, in steps of the same model with exact attention.
        checkpoint: the file to go on from and to keep; ``None`` = nothing is kept.
        signature: what the checkpoint must be of: one of another training, or on another machine,
            is not gone on with.
        tell: told how it goes, in a line.
    """

    def __init__(
        self,
        model: TransformerModel,
        task: Task,
        plan: Plan,
        *,
        batch: int,
        seed: int,
        dtype: torch.dtype = torch.float32,
        step_operations: float = 1.0,
        checkpoint: Path | None = None,
        signature: str = "",
        tell: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.model, self.task, self.plan = model, task, plan
        self.curve, self.spent = Curve(), Spent()
        self._batch, self._seed, self._dtype = batch, seed, dtype
        self._step_operations = step_operations
        self._checkpoint, self._signature, self._tell = checkpoint, signature, tell
        self._device = next(model.parameters()).device
        self._optimizer = _optimizer(model, plan)
        self._scaler = torch.amp.GradScaler(
            self._device.type, enabled=dtype == torch.float16 and self._device.type == "cuda"
        )
        self.finished = False

    def run(self) -> None:
        """Train until the amount is spent, from the checkpoint if there is one.

        Raises:
            DivergedError: if the loss is no longer a number.
            OSError: if the checkpoint cannot be written.
        """
        self._restore()
        if self.finished:
            return
        self.model.train()
        last_saved = last_told = time.monotonic()
        pending: list[Tensor] = []
        often = SYNC_STEPS if self._device.type == "cuda" else 1
        begun = time.perf_counter()
        while (progress := self.spent.of(self.plan)) < 1.0:
            pending.append(self._step(progress))
            self.spent.steps += 1
            self.spent.operations = self.spent.steps * self._step_operations
            if self.spent.steps % often and self.spent.of(self.plan) < 1.0:
                continue
            losses = [float(loss) for loss in pending]  # waits for the device
            self.spent.seconds += time.perf_counter() - begun
            self._note(losses)
            pending = []
            now = time.monotonic()
            if now - last_told >= TELL_S:
                last_told = now
                self._tell(self._line(losses[-1]))
            if now - last_saved >= CHECKPOINT_S:
                last_saved = now
                self._save()
            begun = time.perf_counter()
        self.finished = True
        self.model.eval()
        self._save()

    def _step(self, progress: float) -> Tensor:
        plan = self.plan
        draw: dict[str, Any] = {"seed": self._seed, "index": self.spent.steps}
        if plan.pretrains(progress):
            batch = self.task.pretraining(self._batch, **draw)
        else:
            batch = self.task.batch(self._batch, split="train", **draw)
        for group in self._optimizer.param_groups:
            group["lr"] = plan.rate(progress)
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
            loss = loss_of(self.model, on_device(batch, self._device))
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), plan.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss.detach()

    def _note(self, losses: list[float]) -> None:
        first = self.spent.steps - len(losses) + 1
        for step, loss in enumerate(losses, start=first):
            if loss != loss or loss in (float("inf"), float("-inf")):
                raise DivergedError(f"the loss of step {step} is {loss}")
            self.curve.add(step, self.spent.seconds, loss)

    def _line(self, loss: float) -> str:
        done = 100 * min(1.0, self.spent.of(self.plan))
        return (
            f"step {self.spent.steps}, {done:.0f} % of {self.plan.view}, loss {loss:.3f}, "
            f"{self.tokens_per_s:,.0f} tokens/s"
        )

    @property
    def tokens_per_s(self) -> float:
        """Tokens that a second of training read."""
        tokens = self.spent.steps * self._batch * self.task.seq_len
        return tokens / self.spent.seconds if self.spent.seconds else 0.0

    # -- checkpoints -----------------------------------------------------------------------------

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        content: dict[str, Any] = {
            "model": self.model.state_dict(),
            "spent": vars(self.spent).copy(),
            "curve": vars(self.curve).copy(),
            "finished": self.finished,
        }
        if not self.finished:
            content["optimizer"] = self._optimizer.state_dict()
            content["scaler"] = self._scaler.state_dict()
        checkpoints.keep(self._checkpoint, content, signature=self._signature)

    def _restore(self) -> None:
        content = self._kept()
        if content is None:
            return
        self.model.load_state_dict(content["model"])
        self.spent = Spent(**content["spent"])
        self.curve = Curve(**content["curve"])
        self.finished = content["finished"]
        if self.finished:
            self.model.eval()
            return
        self._optimizer.load_state_dict(content["optimizer"])
        self._scaler.load_state_dict(content["scaler"])

    def _kept(self) -> dict[str, Any] | None:
        if self._checkpoint is None:
            return None
        return checkpoints.read(
            self._checkpoint, signature=self._signature, device=self._device, tell=self._tell
        )


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch on a device."""
    moved: list[Any] = [None if x is None else x.to(device, non_blocking=True) for x in batch]
    return Batch(*moved)


def logits_of(model: TransformerModel, batch: Batch) -> Tensor:
    """Return the logits of a batch, ``[B, N, vocab_size]`` (``[B, M, …]`` of a decoder)."""
    ids = (batch.ids,) if batch.decoder_ids is None else (batch.ids, batch.decoder_ids)
    # Padding stands behind, where no token of a decoder that is asked anything looks.
    mask = None if model.config.architecture == "decoder" else batch.key_padding_mask
    out: Tensor = model(*ids, key_padding_mask=mask)
    return out


def loss_of(model: TransformerModel, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of a batch's labels, in nats."""
    logits = logits_of(model, batch)
    wide = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(
        logits.flatten(0, 1).to(wide), batch.labels.flatten(), ignore_index=IGNORED
    )


def _optimizer(model: nn.Module, plan: Plan) -> torch.optim.AdamW:
    """Build AdamW; embeddings (of positions too), biases and norms do not decay."""
    tables = (m for m in model.modules() if isinstance(m, nn.Embedding | LearnedPositions))
    embeddings = {id(p) for table in tables for p in table.parameters()}
    decaying: list[Tensor] = []
    others: list[Tensor] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            decays = parameter.dim() >= 2 and id(parameter) not in embeddings
            (decaying if decays else others).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": decaying, "weight_decay": plan.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=plan.lr, fused=True, betas=BETAS)
