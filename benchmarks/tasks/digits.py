"""Digits to classify from k-space, and the training of samplers with their classifier.

MNIST's role without its files: digits are rendered with the fonts that come with matplotlib, moved,
turned, sheared and scaled at random.
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
"""Fine pixels along one of an image, so that edges are smooth."""
_HEIGHT = 19.0
"""Of a digit in pixels, before it is scaled."""
_TURN, _SHEAR, _SHIFT = math.radians(25), 0.25, 3.0
"""Largest angle, shear, and shift in pixels."""
_SCALES = (0.75, 1.15)
_AT_ONCE = 250


@dataclass(frozen=True)
class Digits:
    """Digits with their noisy k-space, one coil without a phase.

    Attributes:
        images: ``(count, n, n)`` float32 from 0 to 1.
        labels: ``(count,)`` int64.
        kspace: ``(count, n, n)`` complex64, fully sampled, with noise.
    """

    images: Tensor
    labels: Tensor
    kspace: Tensor

    @classmethod
    def draw(cls, count: int, seed: int, snr: float) -> Digits:
        """So many digits; the first of a larger count are those of a smaller one.

        Args:
            count: how many.
            seed: of everything random.
            snr: of white to the complex noise of a sample.
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
        """The first ones, all of them where there are no more."""
        return Digits(self.images[:count], self.labels[:count], self.kspace[:count])

    def zero_filled(self, masks: Tensor) -> Tensor:
        """``Fᴴ M y`` of every digit, ``(count, n, n)`` complex64.

        Args:
            masks: ``(count, 1, n, n)``.
        """
        return ifft2c(self.kspace * masks[:, 0])


def render_digits(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images ``(count, 28, 28)`` float32 from 0 to 1, and labels ``(count,)`` int64.

    Each follows from the seed and its number.

    Raises:
        InputError: fewer than one.
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
    """One digit in a font of its own, about the middle of the image."""
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
    # From a pixel of the image to that of the canvas: the inverse of the digit's own transform.
    back = turned / rng.uniform(*_SCALES, size=2)[:, None]
    middle = np.full(2, (n - 1) / 2)
    offset = middle - back @ (middle + _FINE * rng.uniform(-_SHIFT, _SHIFT, 2))
    matrix = (*back[0], offset[0], *back[1], offset[1])
    moved = canvas.transform((n, n), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.asarray(moved.reduce(_FINE), np.float32) / 255


@lru_cache(maxsize=len(_FONTS))
def _font(name: str) -> FreeTypeFont:
    """A font whose digits are so high."""
    from pathlib import Path

    from matplotlib import get_data_path
    from PIL import ImageFont

    path = str(Path(get_data_path()) / "fonts" / "ttf" / f"{name}.ttf")
    probe = ImageFont.truetype(path, 100)
    _, top, _, bottom = probe.getbbox("0")
    return ImageFont.truetype(path, round(100 * _HEIGHT * _FINE / (bottom - top)))


class DigitTraining(TaskTraining):
    """``NLL(z|y) + |β| Ĥ(y)`` with one categorical variable: InfoMRI, equations (12) and (26).

    Arguments are those of :class:`~ctxrecon.training.tasks.objective.TaskTraining`.
    """

    def task_loss(
        self, zero_filled: Tensor, batch: dict[str, Tensor], noise: list[torch.Generator]
    ) -> Tensor:
        """See :class:`~ctxrecon.training.tasks.objective.TaskTraining`."""
        logits = self.network(zero_filled)
        return nn.functional.cross_entropy(logits, batch["truth"], reduction="none")


@dataclass(frozen=True)
class DigitRun:
    """How long and how fast samplers and classifiers are trained.

    Attributes:
        epochs: over the training set.
        batch_size: digits.
        width: of the classifier's first stage.
        learning_rate: of the classifier; all fall as a cosine to 0.
        sampler_learning_rate: of the sampler.
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
    """Train a sampler with the classifier of its samples.

    Args:
        sampler: with new weights, or of fixed masks.
        digits: to train with.
        run: how long and how fast.
        entropy_weight: ``|β|``.
        snr: of the digits.
        seed: of the classifier's first weights, the order and the masks.

    Returns:
        The pipeline, in evaluation mode.
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
    """What each sample adds to the entropy of a measurement of these digits."""
    return KSpaceStatistics.of(digits.images).entropies(1 / snr)


def _batches(digits: Digits, run: DigitRun, seed: int) -> Iterator[dict[str, Any]]:
    """Batches as :class:`DigitTraining` takes them, each epoch in another order."""
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
    """A mask for each of so many digits, ``(count, 1, n, n)`` bool."""
    return sampler(acceleration, count, torch.Generator().manual_seed(seed))


@torch.no_grad()
def classified(pipe: TaskPipeline, digits: Digits, masks: Tensor) -> Tensor:
    """Which digits are classified rightly, ``(count,)`` bool."""
    network: Any = pipe.network
    parts = digits.zero_filled(masks).split(_AT_ONCE)
    found = torch.cat([network(part).argmax(dim=1) for part in parts])
    return found == digits.labels
