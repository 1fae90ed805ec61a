"""Outputs of the reconstruction pipelines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import numpy as np
import torch
from diffusers.utils import BaseOutput
from torch import Tensor

from ctxrecon.errors import InputError

if TYPE_CHECKING:
    import PIL.Image

Images: TypeAlias = "Tensor | np.ndarray | list[PIL.Image.Image]"
ImagesT_co = TypeVar("ImagesT_co", bound=Images, covariant=True)
"""Type of the images: a tensor for ``output_type="pt"``."""

_DISPLAY_QUANTILE = 0.995


@dataclass
class ReconstructionOutput(BaseOutput, Generic[ImagesT_co]):
    """Reconstructed images with measures of their quality.

    Read the fields by name: ``BaseOutput`` omits ``None`` fields when it is indexed by an integer
    or converted to a tuple, so positions depend on which fields are present.

    Attributes:
        images: Images of shape ``(batch, ny, nx)``, a complex64 tensor or array or a list of PIL
            magnitude images, depending on ``output_type``; the posterior mean if several samples
            were drawn.
        residual: Relative data residual ``‖A x - y‖ / ‖y‖`` of ``images``, shape ``(batch,)``,
            float32; with two sets of coil maps, of the two images that ``images`` combines.
        std: Standard deviation over the samples in the units of ``images``, shape
            ``(batch, ny, nx)``, float32; ``None`` for one sample.
        expected_error: Error of each pixel as predicted by a network, shape ``(batch, ny, nx)``,
            float32; ``None`` if the method does not predict it.
        samples: Posterior samples of shape ``(batch, num_samples, ny, nx)``, complex64, or
            ``None``.
        coil_maps: Coil maps that were used, shape ``(batch or 1, [2,] coils, ny, nx)``, complex64;
            ``None`` for a single coil.
        prompts: Prompt of each slice, or ``None`` without prompts.

    Example:
        >>> import torch
        >>> from ctxrecon.output import ReconstructionOutput
        >>> generator = torch.Generator().manual_seed(0)
        >>> samples = torch.randn(1, 8, 4, 4, dtype=torch.complex64, generator=generator)
        >>> output = ReconstructionOutput(samples.mean(dim=1), torch.zeros(1), samples=samples)
        >>> lower, upper = output.interval(0.9)
        >>> lower.shape, bool((lower < upper).all())
        (torch.Size([1, 4, 4]), True)
    """

    images: ImagesT_co
    residual: Tensor
    std: Tensor | None = None
    expected_error: Tensor | None = None
    samples: Tensor | None = None
    coil_maps: Tensor | None = None
    prompts: list[str] | None = None

    def interval(self, level: float = 0.95, *, factor: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return the interval that contains the magnitude of each pixel with probability ``level``.

        The interval is ``m ± w f s`` with the mean m and the standard deviation s of the
        magnitudes of the K samples, and w from :func:`interval_width`. It is valid if the samples
        follow the posterior. If they vary too little, ``factor`` rescales their spread
        (``benchmarks.solvers.calibration`` measures it).

        Args:
            level: Probability, between 0 and 1.
            factor: Positive factor f (default: 1).

        Returns:
            Lower and upper limits of shape ``(batch, ny, nx)``, float32; the lower limit is at
            least 0.

        Raises:
            InputError: If there are fewer than two samples, or ``level`` or ``factor`` is out of
                range.
        """
        if self.samples is None:
            raise InputError("one sample has no spread: reconstruct with num_samples of 2 or more")
        if not factor > 0:
            raise InputError(f"expected a positive factor, got {factor}")
        magnitudes = self.samples.abs()
        half = interval_width(level, magnitudes.shape[1]) * factor * magnitudes.std(dim=1)
        mean = magnitudes.mean(dim=1)
        return (mean - half).clamp(min=0), mean + half


@dataclass
class TextToImageOutput(BaseOutput, Generic[ImagesT_co]):
    """Images drawn from a prior without a measurement.

    Attributes:
        images: Images of shape ``(prompts · num_images_per_prompt, ny, nx)``, a complex64 tensor or
            array or a list of PIL magnitude images, depending on ``output_type``.
        prompts: Prompt of each image, or ``None`` without prompts.

    Example:
        >>> import torch
        >>> from ctxrecon.output import TextToImageOutput
        >>> images = torch.zeros(1, 8, 8, dtype=torch.complex64)
        >>> TextToImageOutput(images, prompts=["Knee, PDFS"]).prompts
        ['Knee, PDFS']
    """

    images: ImagesT_co
    prompts: list[str] | None = None


def interval_width(level: float, samples: int) -> float:
    """Compute half the width of a prediction interval, in standard deviations of K samples.

    The width is ``t √(1 + 1/K)`` with Student's t of K − 1 degrees of freedom: the true value is
    one more draw from the distribution of the samples, whose mean and standard deviation are
    themselves estimates.

    Args:
        level: Probability of the interval, between 0 and 1.
        samples: Number K of samples, at least 2.

    Raises:
        InputError: If ``level`` is out of range, or there are fewer than two samples.

    Example:
        >>> from ctxrecon.output import interval_width
        >>> round(interval_width(0.95, samples=8), 3)
        2.508
    """
    from scipy.special import stdtrit

    if not 0 < level < 1:
        raise InputError(f"expected a level between 0 and 1, got {level}")
    if samples < 2:
        raise InputError(f"expected 2 samples or more, got {samples}")
    return float(stdtrit(samples - 1, 0.5 + level / 2)) * math.sqrt(1 + 1 / samples)


def check_output_type(output_type: str) -> None:
    """Validate an output type before any work is done.

    Raises:
        InputError: If it is not ``"pt"``, ``"np"`` or ``"pil"``.
    """
    if output_type not in ("pt", "np", "pil"):
        raise InputError(f"expected output_type 'pt', 'np' or 'pil', got {output_type!r}")


def convert_images(images: Tensor, output_type: str) -> Images:
    """Convert complex images to the requested output type.

    Args:
        images: Complex images of shape ``(batch, ny, nx)``.
        output_type: ``"pt"`` for the tensor itself, ``"np"`` for a complex NumPy array, or
            ``"pil"`` for 8-bit grayscale magnitudes, each slice windowed from 0 to its 99.5 %
            quantile (for display, not for measurements).

    Raises:
        InputError: If ``output_type`` is unknown, or the shape is not ``(batch, ny, nx)``.
    """
    check_output_type(output_type)
    if images.ndim != 3:
        raise InputError(f"expected images (batch, ny, nx), got shape {tuple(images.shape)}")
    if output_type == "pt":
        return images
    array: np.ndarray = images.detach().cpu().numpy()
    if output_type == "np":
        return array
    return [_magnitude_picture(image) for image in np.abs(array)]


def _magnitude_picture(magnitude: np.ndarray) -> PIL.Image.Image:
    from PIL import Image

    white = float(np.quantile(magnitude, _DISPLAY_QUANTILE))
    if white <= 0.0:  # nearly all pixels are zero: scale to the brightest one
        white = float(magnitude.max()) or 1.0
    gray = np.round(255.0 * np.clip(magnitude / white, 0.0, 1.0))
    return Image.fromarray(gray.astype(np.uint8))


def relative_residual(predicted: Tensor, kspace: Tensor) -> Tensor:
    """Compute the relative residual ``‖A x - y‖ / ‖y‖`` of each batch item.

    Args:
        predicted: Predicted data ``A x`` of shape ``(batch, coils, ny, nx)``, complex.
        kspace: Measured data ``y`` of the same shape.

    Returns:
        Residuals of shape ``(batch,)``, float32; 0 if both are zero.
    """
    # In float32, squares of values above 1e19 overflow, and below 1e-19 they underflow.
    peak = kspace.abs().flatten(1).amax(dim=1)
    peak = torch.where(peak > 0, peak, 1.0)[:, None]
    error, measured = (
        # `vector_norm` of a complex tensor is 30 times slower on a CPU.
        torch.linalg.vector_norm(torch.view_as_real(each.resolve_conj()).flatten(1) / peak, dim=1)
        for each in (predicted - kspace, kspace)
    )
    return torch.where(error > 0, error / measured, error).float()
