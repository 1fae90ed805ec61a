"""Adapt a prior to a lab's own scans, and keep what it was where that is no better."""

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
from ctxrecon.training.adapt.objective import Example, Levels, Turn, loss
from ctxrecon.training.adapt.scoring import Scores, prediction_errors, reconstruct
from ctxrecon.training.adapt.slices import Division, Slice, center_of, divide, hide, slices_of
from ctxrecon.training.trained import with_weights

_SHARES = (1.0, 0.5)
"""Of the change of the weights, of which the best on what is held out is taken."""
_HIDDEN_SHARE = 0.4
"""Of the outer samples of an undersampled slice, as in SSDU."""
_SPLITS = 2
"""Of the samples of each undersampled slice."""
_LEAST_SPLITS, _MOST_SPLITS = 8, 48
"""Reconstructions that are made of all undersampled slices before the training."""
_SPLIT_STEPS = 10
_LEAST_PART = 0.3
"""Part of the minutes that is trained for, however long the scoring takes."""
_WARMUP = 0.05
_PROMPT_DROPOUT = 0.1
_MAX_NORM = 1.0


@dataclass(frozen=True)
class Adaptation:
    """What :func:`adapt_prior` gives.

    Attributes:
        pipe: the adapted prior, or the prior as it was where adapting made it no better; in
            float32.
        adapted: whether it is the adapted one.
        scores: on what was held out, of the prior as it was and of the adapted one.
        held_out: what that was, in words.
        scans: how many scans were given.
        slices: slices that were learned from.
        fully_sampled: how many of these were.
        steps: of the optimizer.
        share: of the change of the weights that was taken, 0 for none.
    """

    pipe: ContextMRIPipeline
    adapted: bool
    scores: Scores
    held_out: str
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

    A fifth of the scans, of the slices of a single scan, or a quarter of the outer samples of a
    single slice, is held out. On it the prior is compared before and after, by how well it predicts
    samples that it is not given, and the weights change as far as serves best: all the way, half of
    it, or not at all. Fully sampled slices give images to learn, undersampled ones samples to
    predict; see :mod:`ctxrecon.training.adapt.objective`.

    Example:
        >>> measurements = [Measurement.from_scan(read_scan(file)) for file in files]
        >>> adaptation = adapt_prior(load_prior(), measurements, "Knee, PDFS, TR: 3150")
        >>> output = adaptation.pipe(kspace, mask, prompt="Knee, PDFS, TR: 3150")

    Args:
        pipe: the prior; it stays as it is.
        measurements: Cartesian scans of one or several slices, fully sampled or undersampled.
        prompts: one for all; or of each scan one, one for each of its slices, or ``None``.
        minutes: that all of it takes, the scoring included.
        steps: of the optimizer, in place of ``minutes``, which makes results repeatable.
        batch_size: slices of a step.
        learning_rate: the highest, of AdamW; it falls to 0 by a cosine.
        seed: of all randomness.
        progress: whether to show a bar.

    Raises:
        InputError: scans or options that do not fit, in a sentence of its own for each; or a loss
            that is not finite.
    """
    if steps is not None:
        check_whole("steps", steps, 1)
    check_whole("batch_size", batch_size, 1)
    for name, value in (("minutes", minutes), ("learning_rate", learning_rate)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"expected {name} above 0, got {value}")
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
    before.unet.float()  # coarser weights would not move
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
    return Adaptation(
        pipe=chosen,
        adapted=best_share > 0,
        scores=best if best_share else shown,
        held_out=division.held_out,
        scans=len(measurements),
        slices=len(division.training),
        fully_sampled=sum(item.whole for item in division.training),
        steps=taken,
        share=best_share,
    )


class _Clock:
    """How far a training is: by its steps, or by the time."""

    def __init__(self, steps: int | None, seconds: float) -> None:
        self._steps, self._seconds, self._began = steps, seconds, time.monotonic()

    def start(self) -> None:
        self._began = time.monotonic()

    def part(self, step: int) -> float:
        """0 to 1 after so many steps."""
        if self._steps is not None:
            return step / self._steps
        return min(1.0, (time.monotonic() - self._began) / self._seconds)


def _examples(
    pipe: ContextMRIPipeline, division: Division, generator: torch.Generator
) -> list[Example]:
    """What is learned from; the reconstructions of undersampled slices are made here."""
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
    """A fully sampled slice."""
    measurement = item.measurement
    scale = float(measurement.intensity_scale())
    maps = measurement.coil_maps
    if maps is None:
        maps = torch.ones_like(measurement.y)
    image = mvue(measurement.y, maps) / scale
    return Example(image, _noise_of(item) / scale / math.sqrt(2), states, item.mirrored)


def _noise_of(item: Slice) -> float:
    """Noise of a sample as the scanner measured it, or as the scan shows it; 0 if it does not."""
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
    """An undersampled slice in two parts: one is reconstructed, the other to be predicted."""
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
    """The calibration region, ``(1, 1, ny, nx)`` bool."""
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
    """The change of each weight of the U-Net, and the steps that were taken.

    The network that is trained runs in bfloat16 where the processor is made for it; its weights
    are kept in float32 beside it.
    """
    unet: Any = copy.deepcopy(pipe.unet).train().requires_grad_(True)
    unet.to(memory_format=torch.channels_last)
    if _fast_in_bfloat16(pipe.device):
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
                    f"the loss is {error.item()} at step {step}: lower learning_rate, or look for "
                    "damaged scans; nothing was written"
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
    """Numbers below ``count``, none twice before all are there."""
    rounds = math.ceil(size / count)
    order = [torch.randperm(count, generator=generator) for _ in range(rounds)]
    return torch.cat(order)[:size].tolist()


def _perhaps_without_prompt(item: Example, empty: Tensor, generator: torch.Generator) -> Example:
    """The example, now and then with the states of the empty prompt."""
    dropped = float(torch.rand((), generator=generator)) < _PROMPT_DROPOUT
    return replace(item, states=empty) if dropped else item


def _turn(item: Example, generator: torch.Generator) -> Turn:
    flip, angle = torch.rand(2, generator=generator).tolist()
    return Turn(item.mirrored and flip < 0.5, 2 * math.pi * angle)


def _fast_in_bfloat16(device: torch.device) -> bool:
    """Whether the processor is made for it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    known: Any = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def _moved(pipe: ContextMRIPipeline, change: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """The weights of the U-Net after this share of the change."""
    unet: Any = pipe.unet
    state = {f"unet.{name}": value.clone() for name, value in unet.state_dict().items()}
    for name, value in change.items():
        state[f"unet.{name}"] += share * value.to(state[f"unet.{name}"].dtype)
    return state
