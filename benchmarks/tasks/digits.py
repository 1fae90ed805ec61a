"""Digits to classify from k-space, and training of samplers with their classifier.

The digits replace MNIST: they are rendered with the fonts of matplotlib and randomly shifted,
rotated, sheared and scaled.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.masks.learned import MaskNetwork
from ctxrecon.pipelines import TaskPipeline
from ctxrecon.tasks import FindingClassifier, KSpaceStatistics, SampleEntropies
from ctxrecon.training.tasks.objective import TaskTraining, TaskWeights

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

CLASSES = tuple("0123456789")
SIZE = 28
_FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "STIXGeneral"),
    *("STIXGeneralBol", "STIXGeneralItalic", "cmr10", "cmss10", "cmtt10", "cmb10"),
)
_FINE = 2
"""Oversampling of the rendering, for smooth edges."""
_HEIGHT = 19.0
"""Height of a digit in pixels before scaling."""
_TURN, _SHEAR, _SHIFT = math.radians(25), 0.25, 3.0
"""Largest rotation, shear, and shift in pixels."""
_SCALES = (0.75, 1.15)
_AT_ONCE = 250


@dataclass(frozen=True)
class Digits:
    """Digits with noisy k-space of one coil without a phase.

    Attributes:
        images: Images of shape ``(count, n, n)``, float32 from 0 to 1.
        labels: Labels of shape ``(count,)``, int64.
        kspace: Fully sampled noisy k-space of shape ``(count, n, n)``, complex64.
    """

    images: Tensor
    labels: Tensor
    kspace: Tensor

    @classmethod
    def draw(cls, count: int, seed: int, snr: float) -> Digits:
        """Draw digits; a larger count extends a smaller one.

        Args:
            count: Number of digits.
            seed: Random seed.
            snr: Ratio of white to the complex noise of a sample.
        """
        images, labels = render_digits(count, seed)
        generator = torch.Generator().manual_seed(seed)
        noise = [
            torch.randn((SIZE, SIZE), dtype=torch.complex64, generator=generator)
            for _ in range(count)
        ]
        return cls(images, labels, fft2c(images.to(torch.complex64)) + torch.stack(noise) / snr)

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Digits:
        """Return the first ``count`` digits, or all if there are fewer."""
        return Digits(self.images[:count], self.labels[:count], self.kspace[:count])

    def zero_filled(self, masks: Tensor) -> Tensor:
        """Return ``Fᴴ M y`` of every digit, ``(count, n, n)``, complex64.

        Args:
            masks: Sampling masks of shape ``(count, 1, n, n)``.
        """
        return ifft2c(self.kspace * masks[:, 0])


def render_digits(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Render digits, each determined by the seed and its number.

    Returns:
        Images of shape ``(count, 28, 28)``, float32 from 0 to 1, and labels ``(count,)``, int64.

    Raises:
        InputError: If ``count`` is less than one.
    """
    if count < 1:
        raise InputError(f"expected one digit or more, got {count}")
    images, labels = np.empty((count, SIZE, SIZE), np.float32), np.empty(count, np.int64)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        labels[number] = rng.integers(len(CLASSES))
        images[number] = _render(CLASSES[labels[number]], rng)
    return torch.from_numpy(images), torch.from_numpy(labels)


def _render(digit: str, rng: np.random.Generator) -> np.ndarray:
    """Render one digit in a random font near the center of the image."""
    from PIL import Image, ImageDraw

    n = SIZE * _FINE
    font = _font(_FONTS[int(rng.integers(len(_FONTS)))])
    left, top, right, bottom = font.getbbox(digit)
    canvas = Image.new("L", (n, n))
    corner = ((n - left - right) / 2, (n - top - bottom) / 2)
    ImageDraw.Draw(canvas).text(corner, digit, fill=255, font=font)
    angle, shear = rng.uniform(-_TURN, _TURN), rng.uniform(-_SHEAR, _SHEAR)
    cos, sin = math.cos(angle), math.sin(angle)
    turned = np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]])
    # Maps image pixels to canvas pixels: the inverse of the digit's transform.
    back = turned / rng.uniform(*_SCALES, size=2)[:, None]
    middle = np.full(2, (n - 1) / 2)
    offset = middle - back @ (middle + _FINE * rng.uniform(-_SHIFT, _SHIFT, 2))
    matrix = (*back[0], offset[0], *back[1], offset[1])
    moved = canvas.transform((n, n), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(moved.reduce(_FINE), np.float32) / 255


@lru_cache(maxsize=len(_FONTS))
def _font(name: str) -> FreeTypeFont:
    """Return a font scaled to the height of a digit."""
    from pathlib import Path

    from matplotlib import get_data_path
    from PIL import ImageFont

    path = str(Path(get_data_path()) / "fonts" / "ttf" / f"{name}.ttf")
    probe = ImageFont.truetype(path, 100)
    _, top, _, bottom = probe.getbbox("0")
    return ImageFont.truetype(path, round(100 * _HEIGHT * _FINE / (bottom - top)))


class DigitTraining(TaskTraining):
    """Objective ``NLL(z|y) + |β| Ĥ(y)`` for one categorical variable.

    See InfoMRI, equations (12) and (26). The arguments are those of
    :class:`~ctxrecon.training.tasks.objective.TaskTraining`.
    """

    def task_loss(
        self, zero_filled: Tensor, batch: dict[str, Tensor], noise: list[torch.Generator]
    ) -> Tensor:
        """Return the cross entropy of each digit."""
        logits = self.network(zero_filled)
        return nn.functional.cross_entropy(logits, batch["truth"], reduction="none")


@dataclass(frozen=True)
class DigitRun:
    """Training settings of samplers and classifiers.

    Attributes:
        epochs: Epochs over the training set.
        batch_size: Digits in a batch.
        width: Features of the classifier's first stage.
        learning_rate: Learning rate of the classifier, with a cosine schedule to 0.
        sampler_learning_rate: Learning rate of the sampler, with the same schedule.
    """

    epochs: int = 8
    batch_size: int = 64
    width: int = 8
    learning_rate: float = 2e-3
    sampler_learning_rate: float = 5e-2


def train_digits(
    sampler: MaskNetwork,
    digits: Digits,
    run: DigitRun,
    *,
    entropy_weight: float,
    snr: float,
    seed: int,
) -> TaskPipeline:
    """Train a sampler jointly with the classifier of its measurements.

    Args:
        sampler: Untrained sampler, or fixed masks.
        digits: Training digits.
        run: Training settings.
        entropy_weight: Weight ``|β|`` of the entropy.
        snr: Signal-to-noise ratio of the digits.
        seed: Random seed of the classifier's initial weights, the order and the masks.

    Returns:
        Pipeline in evaluation mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FindingClassifier(CLASSES, run.width)
    pipe = TaskPipeline(sampler, network, classes=list(CLASSES))
    pipe.set_progress_bar_config(disable=True)
    weights = TaskWeights(entropy=entropy_weight)
    model = DigitTraining(pipe, weights, sample_entropies(digits, snr) if entropy_weight else None)
    rates = {"network": run.learning_rate, "sampler": run.sampler_learning_rate}
    optimizer = torch.optim.Adam(
        [{"params": getattr(pipe, name).parameters(), "lr": rate} for name, rate in rates.items()]
    )
    steps = run.epochs * (len(digits) // run.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    model.train()
    for batch in _batches(digits, run, seed):
        optimizer.zero_grad()
        model(batch).mean().backward()
        optimizer.step()
        schedule.step()
    pipe.sampler.eval()
    pipe.network.eval()
    return pipe


def sample_entropies(digits: Digits, snr: float) -> SampleEntropies:
    """Return the contribution of each sample to the entropy of a measurement of these digits."""
    return KSpaceStatistics.of(digits.images).entropies(1 / snr)


def _batches(digits: Digits, run: DigitRun, seed: int) -> Iterator[dict[str, Any]]:
    """Yield batches for :class:`DigitTraining`, shuffled in each epoch."""
    maps = torch.ones((1, 1, SIZE, SIZE), dtype=torch.complex64)
    for epoch in range(run.epochs):
        rng = np.random.default_rng([seed, epoch])
        order = torch.from_numpy(rng.permutation(len(digits)))
        for rows in order[: len(order) // run.batch_size * run.batch_size].split(run.batch_size):
            yield {
                "kspace": digits.kspace[rows][:, None],
                "coil_maps": maps.expand(len(rows), -1, -1, -1),
                "truth": digits.labels[rows],
                "seed": torch.from_numpy(rng.integers(2**62, size=len(rows))),
            }


def draw_masks(sampler: MaskNetwork, acceleration: float, count: int, seed: int) -> Tensor:
    """Draw a mask for each of ``count`` digits, ``(count, 1, n, n)``, bool."""
    return sampler(acceleration, count, torch.Generator().manual_seed(seed))


@torch.no_grad()
def classified(pipe: TaskPipeline, digits: Digits, masks: Tensor) -> Tensor:
    """Return which digits are classified correctly, ``(count,)``, bool."""
    network: Any = pipe.network
    parts = digits.zero_filled(masks).split(_AT_ONCE)
    found = torch.cat([network(part).argmax(dim=1) for part in parts])
    return found == digits.labels
