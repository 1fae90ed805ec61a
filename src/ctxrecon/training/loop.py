"""The accelerate loop that the training scripts share."""

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
"""Numbers of samples that their generators' seeds have room for."""

_PATIENCE = timedelta(days=1)
"""How long processes wait for the main one, which validates alone; where one has died, the
launcher ends the others at once."""

Weights = dict[str, Tensor]
Validation = Callable[[int, Weights], None]
Iteration = Callable[[Accelerator, nn.Module, Any, Any], Tensor]
"""``iterate(accelerator, model, optimizer, batch)`` takes the steps of the optimiser for one batch
and gives the loss to be logged."""


class TrainingSamples(Protocol):
    """Samples that follow from the seed, the step and their number, and how to batch them."""

    def __getitem__(self, place: tuple[int, int]) -> Any:
        """The sample of ``(step, number)``; equal whenever and wherever it is asked for."""

    def collate(self, samples: list[Any]) -> dict[str, Any]:
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


def build_accelerator(config: TrainingConfig, *, parts_rest: bool = False) -> Accelerator:
    """The accelerator of a script, with its trackers.

    Args:
        config: of the run.
        parts_rest: whether at some steps a part of the model gets no gradient, for which processes
            have to look.

    Raises:
        InputError: a precision that the device does not have; more samples than can be numbered.
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
    iterate: Iteration | None = None,
) -> None:
    """Train ``model``, whose call on a batch gives a loss, with AdamW and averaged weights.

    A run that was killed goes on from its last whole checkpoint as if it had not stopped: on one
    machine to the bit. Validation and writing happen on the main process alone.

    Args:
        config: of the run.
        accelerator: from :func:`build_accelerator`.
        model: ``model(batch)`` is the loss of each sample, or one for the batch.
        samples: the training data.
        export: writes the averaged weights in the form that users load; called on the main
            process at each checkpoint, after its validation.
        render: makes of a batch, when it is on the device that trains, what the model is called
            with; by default the batch itself.
        validate: ``validate(step, averaged weights)``, every ``--validation_steps`` and at the
            end, on the main process.
        clip_apart: names of parts of the model whose gradients are clipped each by its own norm.
        rates: by the name of a part of the model, its own learning rate; its weights do not decay.
        iterate: in place of one step of all parts, such as several of one part after the other.
            Parts whose parameters have no gradient at a step are left as they are, with the
            moments of the optimiser: each part is trained as by an optimiser of its own.

    Raises:
        InputError: a folder that cannot take the run (:func:`~ctxrecon.training.check_run`), a
            checkpoint of another network, or weights or losses that are not finite.
    """
    samples[0, 0]  # data that do not fit are refused before anything is written
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
            iterate=iterate or Together(config.max_grad_norm, clip_apart),
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
    iterate: Iteration,
) -> None:
    """See :func:`train`; goes on from a checkpoint, if there is one."""
    parts = parts_of(model, rates)
    learning_rates = [rates.get(name, config.learning_rate) for name in parts]
    optimizer = torch.optim.AdamW(
        [
            {"params": values, "weight_decay": 0.0 if name else config.adam_weight_decay}
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
        if checkpoint is not None:  # it may have been stopped before what follows a checkpoint
            resumed = averaged_weights(model, ema)
            validated(step, resumed)
            if accelerator.is_main_process:
                export(resumed)
        if schedule.ended(start):
            accelerator.print(f"the run has ended with step {start}: nothing left to train")
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
                export(saved)  # with the scores of its validation
            if schedule.ended(step):
                break


class Together:
    """One step of all parts at the end of the micro-batches: an :data:`Iteration`.

    Args:
        max_grad_norm: of the gradients.
        apart: names of parts whose gradients are clipped each by its own norm.
    """

    def __init__(self, max_grad_norm: float, apart: Sequence[str]) -> None:
        self.max_grad_norm, self.apart = max_grad_norm, apart

    def __call__(
        self, accelerator: Accelerator, model: nn.Module, optimizer: Any, batch: Any
    ) -> Tensor:
        """See :data:`Iteration`."""
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
    """Scale gradients down to a norm of ``most``, those of named parts each by itself."""
    if not apart:
        accelerator.clip_grad_norm_(model.parameters(), most)
        return
    accelerator.unscale_gradients()
    for values in parts_of(model, apart).values():
        nn.utils.clip_grad_norm_(values, most)


def parts_of(model: nn.Module, names: Collection[str]) -> dict[str, list[nn.Parameter]]:
    """Trained parameters of the named parts of the model, and of all the rest under ``""``."""
    parts: dict[str, list[nn.Parameter]] = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            own = f"{name.removeprefix('module.')}."
            part = next((each for each in names if own.startswith(f"{each}.")), "")
            parts.setdefault(part, []).append(value)
    return parts
