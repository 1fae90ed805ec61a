"""Classical reconstruction methods with the interface of the diffusion pipeline."""

from __future__ import annotations

import inspect
import logging
from typing import Literal, overload

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from ctxrecon.arrays import ArrayLike
from ctxrecon.baselines import BASELINES
from ctxrecon.checks import check_whole
from ctxrecon.errors import InputError
from ctxrecon.inference.batches import (
    build_output,
    image_batches,
    images_at_once,
    named_progress_bar,
    scatter_slices,
)
from ctxrecon.inference.prompts import check_prompts
from ctxrecon.measurement import Measurement, count_slices, prepare_measurement
from ctxrecon.operators import LinearOperator
from ctxrecon.output import Images, ReconstructionOutput, check_output_type

logger = logging.getLogger(__name__)

_PARTS = 2
"""Real numbers in a complex sample."""


class BaselinePipeline:
    """Zero-filled, CG-SENSE, L1-wavelet or total-variation reconstruction.

    Example:
        >>> import torch
        >>> from ctxrecon.fourier import fft2c
        >>> from ctxrecon.pipelines import BaselinePipeline
        >>> image = torch.zeros(1, 1, 32, 32, dtype=torch.complex64)
        >>> image[..., 8:24, 8:24] = 1
        >>> mask = torch.ones(32, 32, dtype=torch.bool)
        >>> output = BaselinePipeline("cg_sense")(fft2c(image), mask)
        >>> output.images.shape
        torch.Size([1, 32, 32])

    Args:
        method: Name of the method, a key of :data:`ctxrecon.baselines.BASELINES`.

    Raises:
        InputError: If no method has this name.
    """

    progress_bar = DiffusionPipeline.progress_bar
    set_progress_bar_config = DiffusionPipeline.set_progress_bar_config

    def __init__(self, method: str) -> None:
        self.method = BASELINES.find(method)

    @overload
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = ...,
        prompt: str | list[str] | None = ...,
        coil_maps: ArrayLike | None = ...,
        output_type: Literal["pt"] = ...,
        *,
        operator: LinearOperator | None = ...,
        regularization: float | None = ...,
        num_iterations: int | None = ...,
        batch_size: int | None = ...,
    ) -> ReconstructionOutput[Tensor]: ...

    @overload
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = ...,
        prompt: str | list[str] | None = ...,
        coil_maps: ArrayLike | None = ...,
        output_type: str = ...,
        *,
        operator: LinearOperator | None = ...,
        regularization: float | None = ...,
        num_iterations: int | None = ...,
        batch_size: int | None = ...,
    ) -> ReconstructionOutput[Images]: ...

    @torch.no_grad()
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = None,
        prompt: str | list[str] | None = None,
        coil_maps: ArrayLike | None = None,
        output_type: str = "pt",
        *,
        operator: LinearOperator | None = None,
        regularization: float | None = None,
        num_iterations: int | None = None,
        batch_size: int | None = None,
    ) -> ReconstructionOutput[Images]:
        """Reconstruct one slice or a batch of slices.

        Args:
            kspace: Undersampled k-space of shape ``(batch, coils, ny, nx)``, ``(coils, ny, nx)`` or
                ``(ny, nx)``, complex, NumPy or torch; see ``Measurement.from_arrays``.
            mask: Sampling mask. By default it is inferred from the zeros of the k-space, and this
                is logged.
            prompt: Accepted for compatibility with the other pipelines; not used.
            coil_maps: Coil sensitivity maps; by default estimated from the calibration region.
            output_type: Type of the images: ``"pt"``, ``"np"`` or ``"pil"``.
            operator: Forward operator ``A`` if it is not ``M F S``; ``kspace`` is then its data.
            regularization: Regularization weight ``λ``; ``None`` uses the method's default.
            num_iterations: Number of iterations; ``None`` uses the method's default.
            batch_size: Slices reconstructed at once; the default needs little memory (eight slices
                of 320 × 320 with 15 coils).

        Returns:
            Output with ``images``, ``residual`` and ``coil_maps``.

        Raises:
            InputError: If the measurement is malformed, the method does not have the option, or the
                result contains NaN or infinite values.
        """
        check_output_type(output_type)
        if batch_size is not None:
            check_whole("batch_size", batch_size)
        given = {"regularization": regularization, "num_iterations": num_iterations}
        options = {name: value for name, value in given.items() if value is not None}
        reconstruct = BASELINES[self.method]
        unknown = options.keys() - inspect.signature(reconstruct).parameters.keys()
        if unknown:
            raise InputError(
                f"{self.method} does not accept {' or '.join(sorted(unknown))}: remove it"
            )
        check_prompts(prompt, count_slices(kspace, operator))
        if prompt is not None:
            logger.info("%s does not use the prompt", self.method)
        measurement = prepare_measurement(kspace, mask, coil_maps, operator=operator)
        work, _ = measurement.normalized()
        filled = work.filled
        at_once = batch_size or images_at_once(_PARTS, work.y.shape[1:])
        batches = image_batches(filled, work.number_of_sets, at_once)
        images = []
        # The bar of a single batch would show nothing but its end.
        single = len(batches) < 2
        with named_progress_bar(self, self.method, len(filled), hidden=single) as bar:
            for chosen in batches:
                part = work[filled[chosen]]
                images.append(reconstruct(part.operator, part.y, **options))
                bar.update(len(chosen))
        index = filled[torch.cat(batches)] if batches else filled
        like = work.y.new_zeros((len(work), *work.operator.domain_shape[1:]))
        return build_output(scatter_slices(images, index, like), measurement, output_type)
