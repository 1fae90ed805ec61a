"""What every reconstruction pipeline returns."""

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
"""A tensor for ``output_type="pt"``, so that type checkers know it."""

_DISPLAY_QUANTILE = 0.995


@dataclass
class ReconstructionOutput(BaseOutput, Generic[ImagesT_co]):
    """A reconstruction with what is needed to judge it.

    Read the fields by name: ``BaseOutput`` leaves ``None`` fields out when it is indexed by an
    integer or turned into a tuple, so positions shift with what is there.

    Attributes:
        images: ``(batch, ny, nx)`` complex64 tensor or array, or a list of PIL magnitude images,
            by ``output_type``; the posterior mean where several samples were drawn.
        residual: ``(batch,)`` float32 relative data residual ``‖A x - y‖ / ‖y‖`` of ``images``;
            with two sets of coil maps, of the two images that ``images`` combines.
        std: ``(batch, ny, nx)`` float32 standard deviation over the samples, in the units of
            ``images``; ``None`` with one sample.
        expected_error: ``(batch, ny, nx)`` float32, the error that a network expects of each pixel;
            ``None`` where it predicts none.
        samples: ``(batch, num_samples, ny, nx)`` complex64 posterior samples, or ``None``.
        coil_maps: ``(batch or 1, [2,] coils, ny, nx)`` complex64 maps that were used; ``None``
            for a single coil.
        prompts: the prompt of each slice, or ``None`` where no prompt is used.
    """

    images: ImagesT_co
    residual: Tensor
    std: Tensor | None = None
    expected_error: Tensor | None = None
    samples: Tensor | None = None
    coil_maps: Tensor | None = None
    prompts: list[str] | None = None

    def interval(self, level: float = 0.95, *, factor: float = 1.0) -> tuple[Tensor, Tensor]:
        """Where the magnitude of each pixel lies with the probability ``level``.

        ``m ± w f s`` with the mean m and the standard deviation s of the magnitudes of the K
        samples, w of :func:`interval_width`. That holds where the samples are of the posterior;
        ``factor`` is what their spread has to be multiplied by where they are too much alike
        (``benchmarks.solvers.calibration`` measures it).

        Args:
            level: above 0, below 1.
            factor: f, positive.

        Returns:
            lower and upper limit, ``(batch, ny, nx)`` float32, the lower one 0 at least.

        Raises:
            InputError: fewer than two samples, or a level or factor out of range.
        """
        if self.samples is None:
            raise InputError("one image has no spread: reconstruct with num_samples of 2 or more")
        if not factor > 0:
            raise InputError(f"expected a positive factor, got {factor}")
        magnitudes = self.samples.abs()
        half = interval_width(level, magnitudes.shape[1]) * factor * magnitudes.std(dim=1)
        mean = magnitudes.mean(dim=1)
        return (mean - half).clamp(min=0), mean + half


@dataclass
class TextToImageOutput(BaseOutput, Generic[ImagesT_co]):
    """Images that a prior drew without any measurement.

    Attributes:
        images: ``(prompts · num_images_per_prompt, ny, nx)`` complex64 tensor or array, or a list
            of PIL magnitude images, by ``output_type``.
        prompts: the prompt of each image, or ``None`` where none was given.
    """

    images: ImagesT_co
    prompts: list[str] | None = None


def interval_width(level: float, samples: int) -> float:
    """Half the width of a prediction interval in standard deviations of K samples.

    ``t √(1 + 1/K)``, Student's t of K − 1 degrees of freedom: the truth is one more draw from what
    the samples are drawn from, and their mean and spread are estimates themselves.

    Raises:
        InputError: a level out of range, or fewer than two samples.
    """
    from scipy.special import stdtrit

    if not 0 < level < 1:
        raise InputError(f"expected a level between 0 and 1, got {level}")
    if samples < 2:
        raise InputError(f"expected 2 samples or more, got {samples}")
    return float(stdtrit(samples - 1, 0.5 + level / 2)) * math.sqrt(1 + 1 / samples)


def check_output_type(output_type: str) -> None:
    """Refuse an unknown output type before any work is done.

    Raises:
        InputError: if it is not one of "pt", "np" and "pil".
    """
    if output_type not in ("pt", "np", "pil"):
        raise InputError(f"expected output_type 'pt', 'np' or 'pil', got {output_type!r}")


def convert_images(images: Tensor, output_type: str) -> Images:
    """Complex images in the form that the caller asked for.

    Args:
        images: ``(batch, ny, nx)`` complex.
        output_type: ``"pt"`` the tensor itself; ``"np"`` the complex values as a NumPy array;
            ``"pil"`` 8-bit greyscale magnitudes, each slice windowed from 0 to its 99.5 %
            quantile (for looking at, not for measuring).

    Raises:
        InputError: for another ``output_type``, or images that are not ``(batch, ny, nx)``.
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
    if white <= 0.0:  # nearly all of it is zero: let the brightest pixel be white
        white = float(magnitude.max()) or 1.0
    gray = np.round(255.0 * np.clip(magnitude / white, 0.0, 1.0))
    return Image.fromarray(gray.astype(np.uint8))


def relative_residual(predicted: Tensor, kspace: Tensor) -> Tensor:
    """``‖A x - y‖ / ‖y‖`` of each batch item.

    Args:
        predicted: ``A x``, ``(batch, coils, ny, nx)`` complex.
        kspace: the measurement ``y``, of the same shape.

    Returns:
        ``(batch,)`` float32; 0 where both are zero.
    """
    # Float32 has no squares of values above 1e19 or below 1e-19.
    peak = kspace.abs().flatten(1).amax(dim=1)
    peak = torch.where(peak > 0, peak, 1.0)[:, None]
    error, measured = (
        # Of complex numbers the norm takes 30 times as long on a CPU.
        torch.linalg.vector_norm(torch.view_as_real(each.resolve_conj()).flatten(1) / peak, dim=1)
        for each in (predicted - kspace, kspace)
    )
    return torch.where(error > 0, error / measured, error).float()
