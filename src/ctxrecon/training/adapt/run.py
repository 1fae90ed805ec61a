"""Adaptation of a prior to a lab's own scans, with the original as fallback."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ctxrecon.checks import check_whole
from ctxrecon.coils import mvue
from ctxrecon.coils.noise import estimate_noise_std
from ctxrecon.errors import InputError
from ctxrecon.measurement import Measurement
from ctxrecon.operators import sense_operator
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.precision import is_native
from ctxrecon.training.adapt.objective import Example, Levels, Turn, loss
from ctxrecon.training.adapt.scoring import Scores, prediction_errors, reconstruct
from ctxrecon.training.adapt.slices import Division, Slice, center_of, divide, hide, slices_of
from ctxrecon.training.trained import with_weights

_SHARES = (1.0, 0.5)
"""Shares of the weight change that are compared on the held-out data."""
_HIDDEN_SHARE = 0.4
"""Hidden share of the outer samples of an undersampled slice, as in SSDU."""
_SPLITS = 2
"""Number of splits of the samples of each undersampled slice."""
_LEAST_SPLITS, _MOST_SPLITS = 8, 48
"""Limits of the number of reconstructions of undersampled slices before training."""
_SPLIT_STEPS = 10
_LEAST_PART = 0.3
"""Minimum share of the minutes that is used for training, however long the scoring takes."""
_WARMUP = 0.05
_PROMPT_DROPOUT = 0.1
_MAX_NORM = 1.0


@dataclass(frozen=True)
class Adaptation:
    """Result of :func:`adapt_prior`.

    Attributes:
        pipe: Adapted prior, or the original one if adaptation did not improve it; in float32.
        adapted: ``True`` if ``pipe`` is the adapted prior.
        scores: Scores of the original and the adapted prior on the held-out data.
        held_out: Description of the held-out data.
        unseen: ``True`` if the held-out data are of other slices than the training data.
        scans: Number of scans.
        slices: Number of distinct training slices that were used: all fully sampled ones, and at
            most 48 undersampled ones, since each of these is reconstructed before training.
        fully_sampled: Number of fully sampled training slices.
        steps: Number of optimizer steps.
        share: Share of the weight change that was applied, 0 for none.
    """

    pipe: ContextMRIPipeline
    adapted: bool
    scores: Scores
    held_out: str
    unseen: bool
    scans: int
    slices: int
    fully_sampled: int
    steps: int
    share: float


def adapt_prior(
    pipe: ContextMRIPipeline,
    measurements: Sequence[Measurement],
    prompts: Sequence[Sequence[str] | str | None] | str | None = None,
    *,
    minutes: float = 10.0,
    steps: int | None = None,
    batch_size: int = 4,
    learning_rate: float = 1e-4,
    seed: int = 0,
    progress: bool = False,
) -> Adaptation:
    """Fine-tune a prior on a few scans of the kind that it will reconstruct.

    A fifth of the scans, or of the slices of a single scan, or a quarter of the outer samples of a
    single slice, is held out. The prior before and after fine-tuning is compared by how well it
    predicts unseen samples of the held-out data, and the best of the full, half or no change of
    the weights is applied. Training uses the images of fully sampled slices and the samples of
    undersampled ones; see :mod:`ctxrecon.training.adapt.objective`.

    Args:
        pipe: Prior, which is not modified.
        measurements: Cartesian scans of one or several slices, fully sampled or undersampled.
        prompts: A single prompt for all scans, or for each scan one prompt, one per slice, or
            ``None``.
        minutes: Total time in minutes, including the scoring.
        steps: Number of optimizer steps; if given, it replaces ``minutes`` and makes results
            reproducible.
        batch_size: Number of slices per step.
        learning_rate: Peak learning rate of AdamW, which falls to 0 along a cosine.
        seed: Random seed.
        progress: If true, show a progress bar.

    Returns:
        The adapted prior with its scores.

    Raises:
        InputError: If scans or options are invalid or do not match, or the loss is not finite.

    Example:
        >>> measurements = [Measurement.from_scan(read_scan(f)) for f in files]  # doctest: +SKIP
        >>> adaptation = adapt_prior(prior, measurements, "Knee, PDFS")  # doctest: +SKIP
        >>> output = adaptation.pipe(kspace, mask, prompt="Knee, PDFS")  # doctest: +SKIP
    """
    if steps is not None:
        check_whole("steps", steps, 1)
    check_whole("batch_size", batch_size, 1)
    for name, value in (("minutes", minutes), ("learning_rate", learning_rate)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"expected `{name}` above 0, got {value}")
    if not measurements:
        raise InputError("expected at least one scan to adapt to, got none")
    began = time.monotonic()
    given: Sequence[Sequence[str] | str | None] = (
        [prompts] * len(measurements) if prompts is None or isinstance(prompts, str) else prompts
    )
    generator = torch.Generator().manual_seed(seed)
    device = pipe.device
    slices = slices_of([each.to(device) for each in measurements], given)
    division = divide(slices, generator)
    before = with_weights(pipe, {})
    before.unet.float()  # half precision would round small updates away
    before.text_encoder.float()
    scored = time.monotonic()
    errors = prediction_errors(before, division.trials)
    scoring = time.monotonic() - scored
    examples = _examples(before, division, generator)
    clock = _Clock(steps, 0.0)
    if steps is None:
        spent = time.monotonic() - began
        left = 60 * minutes - spent - len(_SHARES) * scoring
        clock = _Clock(None, max(left, _LEAST_PART * 60 * minutes))
    change, taken = _train(
        before, examples, clock, batch_size, learning_rate, generator, progress=progress
    )
    best, best_share = Scores(errors, errors), 0.0
    shown: Scores | None = None
    chosen = before
    for share in _SHARES:
        candidate = with_weights(before, _moved(before, change, share))
        scores = Scores(errors, prediction_errors(candidate, division.trials))
        shown = scores if shown is None or scores.gain > shown.gain else shown
        if scores.gain > best.gain:
            best, best_share, chosen = scores, share, candidate
    assert shown is not None
    whole = sum(item.whole for item in division.training)
    return Adaptation(
        pipe=chosen,
        adapted=best_share > 0,
        scores=best if best_share else shown,
        held_out=division.held_out,
        unseen=division.unseen,
        scans=len(measurements),
        slices=whole + min(len(division.training) - whole, _MOST_SPLITS),
        fully_sampled=whole,
        steps=taken,
        share=best_share,
    )


class _Clock:
    """Progress of a training, by its steps or by time."""

    def __init__(self, steps: int | None, seconds: float) -> None:
        self._steps, self._seconds, self._began = steps, seconds, time.monotonic()

    def start(self) -> None:
        self._began = time.monotonic()

    def part(self, step: int) -> float:
        """Return the progress, 0 to 1, after a number of steps."""
        if self._steps is not None:
            return step / self._steps
        return min(1.0, (time.monotonic() - self._began) / self._seconds)


def _examples(
    pipe: ContextMRIPipeline, division: Division, generator: torch.Generator
) -> list[Example]:
    """Return the training examples; undersampled slices are reconstructed here."""
    found = []
    states: dict[str, Tensor] = {}
    undersampled = [item for item in division.training if not item.whole]
    with torch.no_grad():
        for item in division.training:
            if item.prompt not in states:
                states[item.prompt] = pipe.encode_prompt([item.prompt])
            if item.whole:
                found.append(_known(item, states[item.prompt]))
        order = torch.randperm(len(undersampled), generator=generator).tolist()
        rounds = max(_SPLITS, math.ceil(_LEAST_SPLITS / max(len(order), 1)))
        splits = [undersampled[i] for _ in range(rounds) for i in order][:_MOST_SPLITS]
        for number, item in enumerate(splits):
            found.append(_split(pipe, item, states[item.prompt], generator, number))
    return found


def _known(item: Slice, states: Tensor) -> Example:
    """Return the example of a fully sampled slice."""
    measurement = item.measurement
    scale = float(measurement.intensity_scale())
    maps = measurement.coil_maps
    if maps is None:
        maps = torch.ones_like(measurement.y)
    image = mvue(measurement.y, maps) / scale
    return Example(image, _noise_of(item) / scale / math.sqrt(2), states, item.mirrored)


def _noise_of(item: Slice) -> float:
    """Return the measured or estimated noise of a sample; 0 if it cannot be estimated."""
    measurement = item.measurement
    if measurement.noise_std is not None:
        return float(measurement.noise_std)
    try:
        return float(estimate_noise_std(measurement.y, item.mask))
    except InputError:
        return 0.0


def _split(
    pipe: ContextMRIPipeline,
    item: Slice,
    states: Tensor,
    generator: torch.Generator,
    number: int,
) -> Example:
    """Split an undersampled slice: one part is reconstructed, the other is to be predicted."""
    hidden = hide(item.mask, _HIDDEN_SHARE, generator)
    kept = item.only(item.mask & ~hidden)
    scale = float(kept.measurement.intensity_scale())
    image = reconstruct(pipe, kept, steps=_SPLIT_STEPS, seed=number) / scale
    wanted = hidden | _center(item.mask)
    return Example(
        image=image,
        noise_std=0.0,
        states=states,
        mirrored=item.mirrored,
        operator=sense_operator(wanted, item.measurement.coil_maps),
        hidden=item.measurement.y * wanted / scale,
        count=int(wanted.sum()),
    )


def _center(mask: Tensor) -> Tensor:
    """Return the calibration region, ``(1, 1, ny, nx)`` bool."""
    center = torch.zeros_like(mask)
    rows, columns = center_of(mask)
    center[..., rows, columns] = True
    return center


def _train(
    pipe: ContextMRIPipeline,
    examples: Sequence[Example],
    clock: _Clock,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
    *,
    progress: bool,
) -> tuple[dict[str, Tensor], int]:
    """Return the change of each weight of the U-Net, and the number of steps.

    The trained network runs in bfloat16 if the device supports it natively; a copy of its weights
    is kept in float32.
    """
    unet: Any = copy.deepcopy(pipe.unet).train().requires_grad_(True)
    unet.to(memory_format=torch.channels_last)
    if is_native(torch.bfloat16, pipe.device):
        unet.bfloat16()
    scheduler: Any = pipe.scheduler
    levels = Levels(scheduler.alphas_cumprod.float().cpu(), scheduler.config.prediction_type)
    names = [name for name, _ in unet.named_parameters()]
    running = [value for _, value in unet.named_parameters()]
    start = [dict(pipe.unet.named_parameters())[name].detach().float() for name in names]
    masters = [value.clone().requires_grad_(True) for value in start]
    optimizer = torch.optim.AdamW(masters, lr=learning_rate, weight_decay=0.0, foreach=True)
    shapes = sorted({item.shape for item in examples})
    of_shape = {shape: [e for e in examples if e.shape == shape] for shape in shapes}
    weights = torch.tensor([float(len(of_shape[shape])) for shape in shapes])
    with torch.no_grad():
        empty = pipe.encode_prompt([""])
    clock.start()
    step = 0
    with tqdm(desc="adapting", unit="step", disable=not progress, leave=False) as bar:
        while (part := clock.part(step)) < 1:
            shape = shapes[int(torch.multinomial(weights, 1, generator=generator))]
            own = of_shape[shape]
            chosen = [own[i] for i in _draw(len(own), batch_size, generator)]
            chosen = [_perhaps_without_prompt(item, empty, generator) for item in chosen]
            turns = [_turn(item, generator) for item in chosen]
            error = loss(unet, levels, pipe.padding(shape), chosen, turns, generator)
            if not bool(torch.isfinite(error)):
                raise InputError(
                    f"the loss is {error.item()} at step {step}: lower `learning_rate`, or look "
                    "for damaged scans; nothing was written"
                )
            error.backward()
            for master, value in zip(masters, running, strict=True):
                master.grad = None if value.grad is None else value.grad.float()
                value.grad = None
            nn.utils.clip_grad_norm_(masters, _MAX_NORM)
            factor = min(1.0, part / _WARMUP + 0.05) * 0.5 * (1 + math.cos(math.pi * part))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * factor
            optimizer.step()
            with torch.no_grad():
                for master, value in zip(masters, running, strict=True):
                    value.copy_(master)
            step += 1
            bar.update()
            bar.set_postfix(loss=f"{error.item():.4f}", done=f"{clock.part(step):.0%}")
    changes = [(after - first).detach() for after, first in zip(masters, start, strict=True)]
    return dict(zip(names, changes, strict=True)), step


def _draw(count: int, size: int, generator: torch.Generator) -> list[int]:
    """Draw numbers below ``count``, with repetitions only after all have been drawn."""
    rounds = math.ceil(size / count)
    order = [torch.randperm(count, generator=generator) for _ in range(rounds)]
    return torch.cat(order)[:size].tolist()


def _perhaps_without_prompt(item: Example, empty: Tensor, generator: torch.Generator) -> Example:
    """Return the example, at times with the text states of the empty prompt."""
    dropped = float(torch.rand((), generator=generator)) < _PROMPT_DROPOUT
    return replace(item, states=empty) if dropped else item


def _turn(item: Example, generator: torch.Generator) -> Turn:
    flip, angle = torch.rand(2, generator=generator).tolist()
    return Turn(item.mirrored and flip < 0.5, 2 * math.pi * angle)


def _moved(pipe: ContextMRIPipeline, change: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return the weights of the U-Net after a share of the change."""
    unet: Any = pipe.unet
    state = {f"unet.{name}": value.clone() for name, value in unet.state_dict().items()}
    for name, value in change.items():
        state[f"unet.{name}"] += share * value.to(state[f"unet.{name}"].dtype)
    return state
