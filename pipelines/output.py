"""What every reconstruction pipeline returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from diffusers.utils import BaseOutput
from torch import Tensor

from ctxrecon.errors import InputError

if TYPE_CHECKING:
    import PIL.Image

OutputType: TypeAlias = Literal["pt", "np", "pil"]
Images: TypeAlias = "Tensor | np.ndarray | list[PIL.Image.Image]"

_DISPLAY_QUANTILE = 0.995


@dataclass
class ReconstructionOutput(BaseOutput):
    """A reconstruction with what is needed to judge it.

    Read the fields by name: ``BaseOutput`` leaves ``None`` fields out when it is indexed by an
    integer or turned into a tuple, so positions shift with what is there.

    Attributes:
        images: ``(batch, ny, nx)`` complex64 tensor or array, or a list of PIL magnitude images,
            by ``output_type``; the posterior mean where several samples were drawn.
        std: ``(batch, ny, nx)`` float32 standard deviation over the samples, in the units of
            ``images``; ``None`` with one sample.
        samples: ``(batch, num_samples, ny, nx)`` complex64 posterior samples, or ``None``.
        residual: ``(batch,)`` float32 relative data residual ``‖A x - y‖ / ‖y‖`` of ``images``.
        coil_maps: ``(batch or 1, coils, ny, nx)`` complex64 maps that were used; ``None`` for a
            single coil.
        prompts: the prompt of each slice, or ``None`` where no prompt is used.
    """

    images: Images
    std: Tensor | None = None
    samples: Tensor | None = None
    residual: Tensor | None = None
    coil_maps: Tensor | None = None
    prompts: list[str] | None = None


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
    grey = np.round(255.0 * np.clip(magnitude / white, 0.0, 1.0))
    return Image.fromarray(grey.astype(np.uint8))


def relative_residual(predicted: Tensor, kspace: Tensor) -> Tensor:
    """``‖A x - y‖ / ‖y‖`` of each batch item.

    Args:
        predicted: ``A x``, ``(batch, coils, ny, nx)`` complex.
        kspace: the measurement ``y``, of the same shape.

    Returns:
        ``(batch,)`` float32.
    """
    error = torch.linalg.vector_norm((predicted - kspace).flatten(1), dim=1)
    return (error / torch.linalg.vector_norm(kspace.flatten(1), dim=1)).float()
