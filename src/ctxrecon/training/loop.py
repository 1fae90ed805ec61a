"""Training loop based on accelerate, shared by all training scripts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import send_to_device
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ctxrecon.errors import InputError
from ctxrecon.precision import warn_if_emulated
from ctxrecon.training.checkpoints import (
    averaged_weights,
    load_notes,
    load_state,
    prune_checkpoints,
    save_state,
)
from ctxrecon.training.config import TrainingConfig
from ctxrecon.training.log import Log, has_validation, write_config
from ctxrecon.training.run_folder import claimed
from ctxrecon.training.schedule import Schedule

logger = logging.getLogger(__name__)

_MOST_SAMPLES = 2**39
"""Limit of the number of samples, given by the seeds of their generators."""

_PRECISIONS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_PATIENCE = timedelta(days=1)
"""Time that processes wait for the main one, which validates alone; if one has died, the
launcher ends the others at once."""

Weights = dict[str, Tensor]
Validation = Callable[[int, Weights], None]
Iteration = Callable[[Accelerator, nn.Module, Any, Any], Tensor]
"""``iterate(accelerator, model, optimizer, batch)`` performs the optimizer steps of one batch and
returns the loss to be logged."""


class TrainingSamples(Protocol):
    """Samples determined by seed, step and number, and their collation to batches."""

    def __getitem__(self, place: tuple[int, int]) -> Any:
        """Return the sample of ``(step, number)``, which must be reproducible."""

    def collate(self, samples: list[Any]) -> dict[str, Any]:
        """Collate samples to a batch."""


class SampleNumbers:
    """Places ``(step, number)`` of this process's samples, a list for each micro-batch.

    The samples of an optimizer step have consecutive numbers, distributed first to micro-batches
    and then to processes. Two processes with batch size b thus see the samples of one process with
    batch size 2b.
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


def build_accelerator(config: TrainingConfig, *, parts_rest: bool = False) -> Accelerator:
    """Create the accelerator of a script, with its trackers.

    Args:
        config: Configuration of the run.
        parts_rest: If true, a part of the model gets no gradient in some steps, which processes
            have to detect.

    Raises:
        InputError: If the device does not support the precision, or there are more samples than
            can be numbered.
    """
    handlers: list[Any] = [InitProcessGroupKwargs(timeout=_PATIENCE)]
    if parts_rest:
        handlers.append(DistributedDataParallelKwargs(find_unused_parameters=True))
    try:
        accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            log_with=None if config.report_to == "none" else config.report_to,
            project_dir=config.output_dir,
            kwargs_handlers=handlers,
        )
    except ValueError as error:
        raise InputError(f"--mixed_precision {config.mixed_precision}: {error}") from error
    if accelerator.is_main_process:
        warn_if_emulated(_PRECISIONS[config.mixed_precision], accelerator.device)
    size = config.train_batch_size * config.gradient_accumulation_steps * accelerator.num_processes
    if (config.max_train_steps or 0) * size >= _MOST_SAMPLES:
        raise InputError(
            f"expected fewer than {_MOST_SAMPLES:.1e} samples, got {config.max_train_steps} steps "
            f"of {size}: lower --max_train_steps or --train_batch_size"
        )
    accelerator.wait_for_everyone()
    return accelerator


def train(
    config: TrainingConfig,
    accelerator: Accelerator,
    model: nn.Module,
    samples: TrainingSamples,
    *,
    export: Callable[[Weights], None],
    render: Callable[[dict[str, Any]], dict[str, Tensor]] | None = None,
    validate: Validation | None = None,
    clip_apart: Sequence[str] = (),
    rates: Mapping[str, float] | None = None,
    undecayed: Collection[str] = (),
    iterate: Iteration | None = None,
) -> None:
    """Train ``model``, which maps a batch to a loss, with AdamW and weight averaging.

    An interrupted run continues from its last complete checkpoint as if it had not stopped; on the
    same machine, bit by bit. Validation and writing take place on the main process only.

    Args:
        config: Configuration of the run.
        accelerator: Accelerator from :func:`build_accelerator`.
        model: Module for which ``model(batch)`` is the loss of each sample, or one for the batch.
        samples: Training data.
        export: Function that writes the averaged weights in the form that users load; called on
            the main process at each checkpoint, after its validation.
        render: Function that converts a batch on the training device to the input of the model
            (default: the batch itself).
        validate: ``validate(step, averaged weights)``, called on the main process every
            ``--validation_steps`` and at the end.
        clip_apart: Names of parts of the model whose gradients are clipped separately.
        rates: Separate learning rates of parts of the model, by name.
        undecayed: Names of those among these parts that are trained without weight decay.
        iterate: Function that replaces the joint step of all parts, for example by several steps
            of one part after another. Parts without a gradient in a step are left unchanged,
            including their optimizer state, so that each part is trained as by its own optimizer.

    Raises:
        InputError: If the folder cannot be used (:func:`~ctxrecon.training.check_run`), the
            checkpoint is of another network, every part of the model is frozen, or weights or
            losses are not finite.
    """
    if not any(value.requires_grad for value in model.parameters()):
        raise InputError("nothing is left to train: freeze fewer parts")
    samples[0, 0]  # raise on unsuitable data before anything is written
    with claimed(config, accelerator) as checkpoint:
        _train(
            config,
            accelerator,
            model,
            samples,
            checkpoint,
            export=export,
            render=render,
            validate=validate,
            rates=rates or {},
            undecayed=undecayed,
            iterate=iterate or JointStep(config.max_grad_norm, clip_apart),
        )
    accelerator.end_training()


def _train(
    config: TrainingConfig,
    accelerator: Accelerator,
    model: nn.Module,
    samples: TrainingSamples,
    checkpoint: Path | None,
    *,
    export: Callable[[Weights], None],
    render: Callable[[dict[str, Any]], dict[str, Tensor]] | None,
    validate: Validation | None,
    rates: Mapping[str, float],
    undecayed: Collection[str],
    iterate: Iteration,
) -> None:
    """Train as in :func:`train`, from a checkpoint if there is one."""
    parts = parts_of(model, rates)
    learning_rates = [rates.get(name, config.learning_rate) for name in parts]
    decay = config.adam_weight_decay
    optimizer = torch.optim.AdamW(
        [
            {"params": values, "weight_decay": 0.0 if name in undecayed else decay}
            for name, values in parts.items()
        ],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    trained = [value for value in model.parameters() if value.requires_grad]
    ema = EMAModel(trained, decay=config.ema_decay, foreach=True)
    state = {
        "model": model,
        "ema": ema,
        "optimizer": optimizer.optimizer,
        "scaler": accelerator.scaler,
    }
    start = 0 if checkpoint is None else load_state(checkpoint, **state)
    losses, seconds = ((), 0.0) if checkpoint is None else load_notes(checkpoint)
    schedule = Schedule(config, accelerator, seconds)
    write_config(config, accelerator, start, finished=schedule.ended(start))
    loader: DataLoader = DataLoader(
        samples,  # type: ignore[arg-type]
        batch_sampler=SampleNumbers(
            range(start, schedule.steps),
            config.train_batch_size,
            config.gradient_accumulation_steps,
            accelerator.process_index,
            accelerator.num_processes,
        ),
        collate_fn=samples.collate,
        num_workers=config.dataloader_num_workers,
        pin_memory=accelerator.device.type == "cuda",
    )

    def due(step: int, every: int) -> bool:
        return step % every == 0 or schedule.ended(step)

    def validated(step: int, averages: Weights | None) -> None:
        if validate is None or not due(step, config.validation_steps):
            return
        averages = averages or averaged_weights(model, ema)
        if accelerator.is_main_process and not has_validation(config.output_dir, step):
            validate(step, averages)
        accelerator.wait_for_everyone()

    with closing(Log(config, accelerator, start, losses)) as log:
        step = start
        if checkpoint is not None:  # the run may have stopped before validation and export
            resumed = averaged_weights(model, ema)
            validated(step, resumed)
            if accelerator.is_main_process:
                export(resumed)
        if schedule.ended(start):
            accelerator.print(f"the run has ended at step {start}: nothing left to train")
        for batch in () if schedule.ended(start) else loader:
            factor = schedule.rate(step)
            for group, highest in zip(optimizer.param_groups, learning_rates, strict=True):
                group["lr"] = highest * factor
            batch = send_to_device(batch, accelerator.device, non_blocking=True)
            batch = batch if render is None else render(batch)
            log.add(iterate(accelerator, model, optimizer, batch).detach())
            if not accelerator.sync_gradients:
                continue
            ema.step(trained)
            step += 1
            schedule.tick()
            log.step(step, config.learning_rate * factor, schedule)
            saved: Weights | None = None
            if due(step, config.checkpointing_steps):
                saved = save_state(
                    config.output_dir,
                    step,
                    **state,
                    losses=log.pending(step),
                    seconds=schedule.seconds,
                    write=accelerator.is_main_process,
                )
                if accelerator.is_main_process:
                    prune_checkpoints(config.output_dir, config.checkpoints_total_limit)
            validated(step, saved)
            if saved is not None and accelerator.is_main_process:
                export(saved)  # includes the scores of this validation
            if schedule.ended(step):
                break


class JointStep:
    """Joint step of all parts after the last micro-batch: an :data:`Iteration`.

    Args:
        max_grad_norm: Norm above which gradients are clipped.
        apart: Names of parts whose gradients are clipped separately.
    """

    def __init__(self, max_grad_norm: float, apart: Sequence[str]) -> None:
        self.max_grad_norm, self.apart = max_grad_norm, apart

    def __call__(
        self, accelerator: Accelerator, model: nn.Module, optimizer: Any, batch: Any
    ) -> Tensor:
        """Accumulate one micro-batch and step at the last one; see :data:`Iteration`."""
        with accelerator.accumulate(model):
            loss = model(batch).mean()
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                clip_gradients(accelerator, model, self.max_grad_norm, self.apart)
            optimizer.step()
            optimizer.zero_grad()
        return loss


def clip_gradients(
    accelerator: Accelerator, model: nn.Module, most: float, apart: Sequence[str]
) -> None:
    """Clip gradients to the norm ``most``, those of named parts separately."""
    if not apart:
        accelerator.clip_grad_norm_(model.parameters(), most)
        return
    accelerator.unscale_gradients()
    for values in parts_of(model, apart).values():
        nn.utils.clip_grad_norm_(values, most)


def parts_of(model: nn.Module, names: Collection[str]) -> dict[str, list[nn.Parameter]]:
    """Return the trained parameters of named parts, and all others under ``""``."""
    parts: dict[str, list[nn.Parameter]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            own = f"{name.removeprefix('module.')}."
            part = next((each for each in names if own.startswith(f"{each}.")), "")
            parts.setdefault(part, []).append(value)
    return parts
