"""The loop of a training: steps, checkpoints, evaluations.

A training's folder holds `plan.json` and `start.npz`; added are `checkpoint.pt` (to go on from),
`weights.npz` (the averaged weights, what is exported) and `progress.jsonl`. Step n draws its clips
and its augmentation from the seed and n, so that a training that was interrupted goes on as if it
had not been, at most one checkpoint's interval back, as long as the speech is the same. Imports
torch: never imported by edgevoice.
"""

from __future__ import annotations

import copy
import io
import json
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from edgevoice.errors import ArtifactError, ExportError
from edgevoice.export.distil import evaluation, plan, rates, shards
from edgevoice.export.distil.batches import Batch, Batches
from edgevoice.export.distil.files import HEARD, PROGRESS, START, WEIGHTS
from edgevoice.export.distil.model import Recogniser, View, output_frames
from edgevoice.export.distil.outliers import Losses
from edgevoice.export.distil.plan import Plan
from edgevoice.whole_file import write_whole

CHECKPOINT = "checkpoint.pt"
_AHEAD = 4
_MOST_NAMED = 20
_LARGEST_GRADIENT = 2.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How it is run; nothing of this changes what is computed but by rounding.

    Attributes:
        device: torch's name of it.
        preparers: Threads that prepare batches.
        checkpoint_s: Between checkpoints.
        report_steps: Between lines of progress.
        evaluate_steps: Between evaluations.
    """

    device: str
    preparers: int
    checkpoint_s: float
    report_steps: int
    evaluate_steps: int


class Trainer:
    """One training.

    Args:
        work: Its folder.
        batches: What it hears.
        held_out: By name, what it is judged by and never hears.
        settings: How it is run.
    """

    def __init__(
        self,
        work: Path,
        made: Plan,
        batches: Batches,
        held_out: Mapping[str, Sequence[shards.Clip]],
        settings: Settings,
    ) -> None:
        self._work, self._plan, self._batches = work, made, batches
        self._held_out, self._settings = held_out, settings
        self._model = Recogniser(made.shape).to(settings.device)
        self._optimiser: Any = None
        self._step = 0
        self._heard_frames = 0
        self._losses = Losses()
        self._left_out: list[str] = []
        if (work / CHECKPOINT).is_file():
            self._averaged = copy.deepcopy(self._model)
            self._restore()
        else:
            self._model.load_state_dict(_start(work / START, self._model.state_dict()))
            self._averaged = copy.deepcopy(self._model)
        self._averaged.requires_grad_(False)

    def run(self, until: float, asked_to_stop: Sequence[int]) -> bool:
        """Train until the plan is done; return False if it ends before.

        It ends at the time ``until`` (of ``time.monotonic``), and once ``asked_to_stop`` has
        anything in it.
        """
        saved = time.monotonic()
        losses: list[float] = []
        began, since = time.monotonic(), self._heard_frames
        for batch in self._prepared_by_stages():
            losses.append(self._train(batch))
            self._step += 1
            if self._step % self._settings.report_steps == 0 or self._step == self._plan.steps:
                seconds = time.monotonic() - began
                heard = (self._heard_frames - since) / 100.0
                self._report(
                    loss=round(float(np.mean(losses)), 4),
                    step_s=round(seconds / len(losses), 3),
                    times_real_time=round(heard / seconds, 1),
                )
                losses, began, since = [], time.monotonic(), self._heard_frames
            if self._step % self._settings.evaluate_steps == 0 or self._step == self._plan.steps:
                self._evaluate()
            if time.monotonic() - saved > self._settings.checkpoint_s:
                self._save()
                saved = time.monotonic()
            if asked_to_stop or time.monotonic() > until:
                break
        self._save()
        return self._step >= self._plan.steps

    def _train(self, batch: Batch) -> float:
        """Take one step; return the loss, in nats a token."""
        stage, at = self._plan.stage_at(self._step)
        if at == 0 or self._optimiser is None:
            self._optimiser = rates.optimiser(self._model, stage, self._plan.shape.layers)
        rates.set_rates(self._optimiser, stage, at, self._plan.warm_up_steps)
        device = self._settings.device
        random = np.random.default_rng([self._plan.seed, 0x74, self._step])
        features = torch.from_numpy(batch.features).to(device)
        lengths = output_frames(torch.from_numpy(batch.frames).to(device))
        sizes, shares = zip(*stage.chunks.items(), strict=True)
        chunk = int(random.choice([int(size) for size in sizes], p=np.array(shares) / sum(shares)))
        left = self._plan.shape.left if chunk < plan.WHOLE else plan.WHOLE
        view = View(chunk, left, lengths)
        offsets = torch.zeros(len(lengths), dtype=torch.long, device=device)
        if random.random() >= stage.from_start:
            drawn = random.integers(0, self._plan.shape.positions, len(lengths))
            offsets = torch.from_numpy(drawn).to(device)
        self._model.train()
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            with torch.set_grad_enabled(stage.lower_rate > 0 or stage.upper_rate > 0):
                encoded = self._model.encode(features, view, offsets)
            scores = self._model.scores(encoded, view)
        targets = torch.from_numpy(batch.targets).to(device)
        target_lengths = torch.from_numpy(batch.target_lengths).to(device)
        losses = functional.ctc_loss(
            scores.float().log_softmax(-1).transpose(0, 1),
            targets,
            lengths,
            target_lengths,
            reduction="none",
            zero_infinity=True,  # said faster than a token a frame
        )
        if stage is self._plan.stages[0] and at >= stage.steps // 2:
            for names, found in zip(batch.names, (losses / target_lengths).tolist(), strict=True):
                self._losses.add(names, found)
        loss = losses.sum() / target_lengths.sum()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), _LARGEST_GRADIENT)
        if torch.isfinite(norm):
            self._optimiser.step()
        self._heard_frames += int(batch.frames.sum())
        self._average()
        return float(loss.item())

    def _average(self) -> None:
        """Move the averaged weights towards the present ones; early on, faster."""
        steps = self._step + 1
        share = max(1.0 / self._plan.averaged_steps, 1.0 - steps / (steps + 20.0))
        with torch.no_grad():
            old, new = list(self._averaged.parameters()), list(self._model.parameters())
            torch._foreach_lerp_(old, new, share)

    def _prepared_by_stages(self) -> Iterator[Batch]:
        """Yield the batches from the present step on; outliers are left out behind stage one."""
        judged_at = self._plan.stages[0].steps
        if self._step < judged_at:
            yield from self._prepared(judged_at)
        if self._step == judged_at:
            self._judge()
        if self._left_out:
            self._batches.leave_out(self._left_out)
        yield from self._prepared(self._plan.steps)

    def _judge(self) -> None:
        outliers = self._losses.outliers()
        self._left_out = list(outliers)
        for name, loss in list(outliers.items())[:_MOST_NAMED]:
            print(f"{name}: its words are not what is said (loss {loss:.1f}); left out", flush=True)
        if outliers:
            print(f"{len(outliers)} recordings left out as their words are wrong", flush=True)

    def _prepared(self, end: int) -> Iterator[Batch]:
        """Yield the batches from the present step to ``end``, prepared ahead by threads."""
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(self._settings.preparers) as pool:
            try:
                number = self._step
                while number < end or waiting:
                    while number < end and len(waiting) < _AHEAD:
                        waiting.append(pool.submit(self._batches.batch, number))
                        number += 1
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _evaluate(self) -> None:
        shape = self._plan.shape
        found = {
            name: evaluation.word_errors(self._averaged, clips, shape.chunk, self._settings.device)
            for name, clips in self._held_out.items()
        }
        self._report(word_errors_percent={name: round(e, 2) for name, e in found.items()})

    def _report(self, **figures: object) -> None:
        stage = self._plan.stage_at(min(self._step, self._plan.steps) - 1)[0].name
        hours = round(self._heard_frames / 360_000.0, 3)
        line = json.dumps({"step": self._step, "of": self._plan.steps, "stage": stage,
                           "heard_hours": hours, **figures})  # fmt: skip
        print(line, flush=True)
        with (self._work / PROGRESS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def write_heard(self) -> None:
        """Write what the averaged weights read in all that is held out."""
        chunk, device = self._plan.shape.chunk, self._settings.device
        read = [
            (
                str(clip.file.resolve()),
                clip.line.start,
                evaluation.read(self._averaged, clip, chunk, device),
            )
            for clips in self._held_out.values()
            for clip in clips
        ]
        write_whole(self._work / HEARD, json.dumps(read).encode())

    def _save(self) -> None:
        held = io.BytesIO()
        torch.save(
            {
                "plan": self._plan.as_json(),
                "step": self._step,
                "heard_frames": self._heard_frames,
                "model": self._model.state_dict(),
                "averaged": self._averaged.state_dict(),
                "optimiser": self._optimiser.state_dict() if self._optimiser else None,
                "lowest": self._losses.lowest,
                "heard": self._losses.heard,
                "left_out": self._left_out,
            },
            held,
        )
        write_whole(self._work / CHECKPOINT, held.getvalue())
        arrays = {k: v.cpu().numpy() for k, v in self._averaged.state_dict().items()}
        weights = io.BytesIO()
        np.savez(weights, allow_pickle=False, **arrays)
        write_whole(self._work / WEIGHTS, weights.getvalue())

    def _restore(self) -> None:
        path = self._work / CHECKPOINT
        try:
            held = torch.load(path, map_location=self._settings.device, weights_only=True)
            before = plan.from_json(held["plan"])
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read: {error!r}"[:300]) from error
        if before != self._plan:
            raise ExportError(
                f"{path} is of another training ({_differing(before, self._plan)}); give the one "
                "that it was begun with, or another folder"
            )
        self._model.load_state_dict(held["model"])
        self._averaged.load_state_dict(held["averaged"])
        self._step, self._heard_frames = held["step"], held["heard_frames"]
        self._losses = Losses(held["lowest"], held["heard"])
        self._left_out = held["left_out"]
        if held["optimiser"] is not None and self._step < self._plan.steps:
            stage, at = self._plan.stage_at(self._step)
            if at:
                self._optimiser = rates.optimiser(self._model, stage, self._plan.shape.layers)
                self._optimiser.load_state_dict(held["optimiser"])


def _start(path: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    with np.load(path) as stored:
        found = {name: torch.from_numpy(stored[name]) for name in stored.files}
    for name, tensor in wanted.items():
        if name not in found or found[name].shape != tensor.shape:
            shape = tuple(found[name].shape) if name in found else "nothing"
            raise ExportError(f"{path}: {name} is {shape}, the plan has {tuple(tensor.shape)}")
    return found


def _differing(before: Plan, now: Plan) -> str:
    old, new = before.as_json(), now.as_json()
    keys = [key for key in new if old[key] != new[key]]
    inner = [key for key in new["shape"] if old["shape"][key] != new["shape"][key]]
    return ", ".join(inner if keys == ["shape"] else keys)
