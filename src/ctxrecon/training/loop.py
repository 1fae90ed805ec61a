"""The accelerate loop that the training scripts share."""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ctxrecon.errors import InputError
from ctxrecon.io._files import written_beside
from ctxrecon.training.checkpoints import (
    averaged_weights,
    latest_checkpoint,
    load_state,
    prune_checkpoints,
    save_state,
)

logger = logging.getLogger(__name__)

_LOG_STEPS = 20

Weights = dict[str, Tensor]
Validation = Callable[[int, Weights], None]


class TrainingSamples(Protocol):
    """Samples that follow from the seed, the step and their number, and how to batch them."""

    def __getitem__(self, place: tuple[int, int]) -> Any:
        """The sample of ``(step, number)``; equal whenever and wherever it is asked for."""

    def collate(self, samples: list[Any]) -> dict[str, Tensor]:
        """One batch."""


class SampleNumbers:
    """Places ``(step, number)`` of this process's samples, a list for each micro-batch.

    The samples of one optimiser step are consecutive numbers, dealt to micro-batches and then to
    processes; so two processes with batch b see what one with batch 2b sees.
    """

    def __init__(self, steps: range, size: int, parts: int, rank: int, world: int) -> None:
        self.steps, self.size, self.parts, self.rank, self.world = steps, size, parts, rank, world

    def __len__(self) -> int:
        return len(self.steps) * self.parts

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self.steps:
            for part in range(self.parts):
                first = ((step * self.parts + part) * self.world + self.rank) * self.size
                yield [(step, first + offset) for offset in range(self.size)]


def build_accelerator(args: argparse.Namespace, *, parts_rest: bool = False) -> Accelerator:
    """The accelerator of a script, with its output folder and trackers.

    Args:
        args: from :func:`ctxrecon.training.arguments.add_training_arguments`.
        parts_rest: whether at some steps a part of the model gets no gradient, for which processes
            have to look.
    """
    if args.report_to == "tensorboard" and not _has_tensorboard():
        raise InputError(
            "--report_to tensorboard needs tensorboard: install it with pip install "
            "'ctxrecon[train]', or give --report_to none"
        )
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=None if args.report_to == "none" else args.report_to,
        project_dir=args.output_dir,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)]
        if parts_rest
        else None,
    )
    if accelerator.is_main_process:
        args.output_dir.mkdir(parents=True, exist_ok=True)
    accelerator.wait_for_everyone()
    return accelerator


def _has_tensorboard() -> bool:
    from accelerate.utils import is_tensorboard_available

    return bool(is_tensorboard_available())


def train(
    args: argparse.Namespace,
    accelerator: Accelerator,
    model: nn.Module,
    samples: TrainingSamples,
    *,
    export: Callable[[Weights], None],
    validate: Validation | None = None,
    clip_apart: Sequence[str] = (),
    rates: Mapping[str, float] | None = None,
) -> None:
    """Train ``model``, whose call on a batch gives a loss, with AdamW and averaged weights.

    A run that was killed goes on from its last whole checkpoint as if it had not stopped: on one
    machine to the bit. Validation and writing happen on the main process alone.

    Args:
        args: from :func:`ctxrecon.training.arguments.add_training_arguments`.
        accelerator: from :func:`build_accelerator`.
        model: ``model(batch)`` is the loss of each sample, or one for the batch.
        samples: the training data.
        export: writes the averaged weights in the form that users load; called on the main
            process at each checkpoint.
        validate: ``validate(step, averaged weights)``, every ``--validation_steps`` and at the
            end, on the main process.
        clip_apart: names of parts of the model whose gradients are clipped each by its own norm.
        rates: by the name of a part of the model, its own learning rate; its weights do not decay.
    """
    parts = _parts(model, rates or {})
    learning_rates = [(rates or {}).get(name, args.learning_rate) for name in parts]
    optimizer = torch.optim.AdamW(
        [
            {"params": values, "weight_decay": 0.0 if name else args.adam_weight_decay}
            for name, values in parts.items()
        ],
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    trained = [value for value in model.parameters() if value.requires_grad]
    ema = EMAModel(trained, decay=args.ema_decay, foreach=True)
    state = {
        "model": model,
        "ema": ema,
        "optimizer": optimizer.optimizer,
        "scaler": accelerator.scaler,
    }
    start = 0
    if args.resume_from_checkpoint:
        wanted = args.resume_from_checkpoint
        folder = latest_checkpoint(args.output_dir) if wanted == "latest" else Path(wanted)
        start = load_state(folder, **state)
    _write_config(args, accelerator, start)
    loader: DataLoader = DataLoader(
        samples,  # type: ignore[arg-type]
        batch_sampler=SampleNumbers(
            range(start, args.max_train_steps),
            args.train_batch_size,
            args.gradient_accumulation_steps,
            accelerator.process_index,
            accelerator.num_processes,
        ),
        collate_fn=samples.collate,
        num_workers=args.dataloader_num_workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    rate = learning_rate(args)
    log = Log(args, accelerator, start)
    step = start
    if start >= args.max_train_steps and accelerator.is_main_process:
        export(averaged_weights(model, ema))  # in case it was stopped before that
    for batch in loader:
        for group, highest in zip(optimizer.param_groups, learning_rates, strict=True):
            group["lr"] = highest * rate(step)
        batch = {
            name: value.to(accelerator.device, non_blocking=True) for name, value in batch.items()
        }
        with accelerator.accumulate(model):
            loss = model(batch).mean()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                clip_gradients(accelerator, model, args.max_grad_norm, clip_apart)
            optimizer.step()
            optimizer.zero_grad()
        log.add(loss.detach())
        if not accelerator.sync_gradients:
            continue
        ema.step(trained)
        step += 1
        log.step(step, args.learning_rate * rate(step - 1))
        last = step == args.max_train_steps
        averages = None
        if step % args.checkpointing_steps == 0 or last:
            averages = save_state(args.output_dir, step, **state, write=accelerator.is_main_process)
            if accelerator.is_main_process:
                prune_checkpoints(args.output_dir, args.checkpoints_total_limit)
                export(averages)
        if validate is not None and (step % args.validation_steps == 0 or last):
            averages = averages or averaged_weights(model, ema)
            if accelerator.is_main_process:
                validate(step, averages)
            accelerator.wait_for_everyone()
    log.close()
    accelerator.end_training()


def clip_gradients(
    accelerator: Accelerator, model: nn.Module, most: float, apart: Sequence[str]
) -> None:
    """Scale gradients down to a norm of ``most``, those of named parts each by itself."""
    if not apart:
        accelerator.clip_grad_norm_(model.parameters(), most)
        return
    accelerator.unscale_gradients()
    for values in _parts(model, apart).values():
        nn.utils.clip_grad_norm_(values, most)


def _parts(model: nn.Module, names: Container[str]) -> dict[str, list[nn.Parameter]]:
    """Trained parameters of the named parts of the model, and of all the rest under ``""``."""
    parts: dict[str, list[nn.Parameter]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            first = name.removeprefix("module.").split(".")[0]
            parts.setdefault(first if first in names else "", []).append(value)
    return parts


def learning_rate(args: argparse.Namespace) -> Callable[[int], float]:
    """Factor of the learning rate at each step, by diffusers' schedules.

    A function of the step alone, so that nothing has to be restored on resume.
    """
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule: Any = get_scheduler(
        args.lr_scheduler,
        optimizer,
        num_warmup_steps=args.lr_warmup_steps,
        num_training_steps=args.max_train_steps,
    )
    return schedule.lr_lambdas[0]


class Log:
    """Progress bar, ``log.jsonl`` and trackers.

    Lines of later steps than that from which a run is resumed are dropped: those steps are done
    again.
    """

    def __init__(self, args: argparse.Namespace, accelerator: Accelerator, start: int) -> None:
        self.accelerator = accelerator
        self.path = args.output_dir / "log.jsonl"
        self.losses: list[Tensor] = []
        self.first, self.began = start, time.monotonic()
        self.bar = tqdm(
            total=args.max_train_steps,
            initial=start,
            unit="step",
            disable=not accelerator.is_main_process,
        )
        if not accelerator.is_main_process:
            return
        self.path.touch()
        for path in args.output_dir.glob("*.jsonl"):
            _drop_later_lines(path, start)
        if args.report_to != "none":
            accelerator.init_trackers(
                "tracker", init_kwargs={"tensorboard": {"purge_step": start + 1}}
            )

    def add(self, loss: Tensor) -> None:
        """The loss of one micro-batch on this process."""
        self.losses.append(loss)

    def step(self, step: int, rate: float) -> None:
        """Note an optimiser step."""
        self.bar.update()
        if step % _LOG_STEPS and step != self.bar.total:
            return
        mean = self.accelerator.reduce(torch.stack(self.losses).mean(), reduction="mean").item()
        seconds = (time.monotonic() - self.began) / (step - self.first)
        self.losses.clear()
        if not math.isfinite(mean):
            raise InputError(
                f"the loss is {mean} at step {step}: lower --learning_rate, or look for damaged "
                "data; the checkpoints before are as they were"
            )
        self.bar.set_postfix(loss=f"{mean:.4f}")
        if self.accelerator.is_main_process:
            line = {"step": step, "loss": mean, "lr": rate, "seconds_per_step": round(seconds, 3)}
            write_line(self.path, line)
            self.accelerator.log({"loss": mean, "lr": rate}, step=step)

    def close(self) -> None:
        """End the bar."""
        self.bar.close()


def write_line(path: Path, line: dict[str, Any]) -> None:
    """Append one JSON line at once."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _drop_later_lines(path: Path, step: int) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]  # a killed run may leave a part
    with written_beside(path) as beside:
        kept = [line for line in whole if json.loads(line)["step"] <= step]
        beside.write_text("".join(kept), encoding="utf-8")


def log_validation(
    accelerator: Accelerator, folder: Path, step: int, scores: dict[str, float], picture: Path
) -> None:
    """Scores to ``validation.jsonl``, the trackers and the terminal; the picture to tensorboard."""
    write_line(folder / "validation.jsonl", {"step": step, **scores})
    accelerator.log({f"validation/{name}": value for name, value in scores.items()}, step=step)
    _log_picture(accelerator, picture, step)
    accelerator.print(json.dumps({"step": step, **scores}))


def _log_picture(accelerator: Accelerator, path: Path, step: int) -> None:
    """Show a picture in tensorboard, where there is one."""
    from PIL import Image

    for tracker in accelerator.trackers:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))[None]
        tracker.log_images({"validation": pixels}, step=step, dataformats="NHWC")


def _write_config(args: argparse.Namespace, accelerator: Accelerator, start: int) -> None:
    """The resolved options beside the run, those of each resume under its first step."""
    if not accelerator.is_main_process:
        return
    path = args.output_dir / "config.json"
    runs = {}
    if start and path.is_file():
        runs = json.loads(path.read_text(encoding="utf-8"))
    options = {key: str(v) if isinstance(v, Path) else v for key, v in vars(args).items()}
    world = {"num_processes": accelerator.num_processes, "device": str(accelerator.device)}
    runs[f"from step {start}"] = {**options, **world, "torch_threads": torch.get_num_threads()}
    with written_beside(path) as beside:
        beside.write_text(json.dumps(runs, indent=2, default=str) + "\n", encoding="utf-8")
