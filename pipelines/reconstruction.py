"""Reconstruction with a network that maps k-space to the image directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from ctxrecon.arrays import ArrayLike
from ctxrecon.checks import check_whole
from ctxrecon.inference.batches import (
    build_output,
    image_batches,
    images_at_once,
    named_progress_bar,
    scatter_slices,
)
from ctxrecon.loading.components import reconstructor_components
from ctxrecon.measurement import Measurement, count_slices, prepare_measurement
from ctxrecon.operators import LinearOperator
from ctxrecon.output import Images, ReconstructionOutput, check_output_type
from ctxrecon.pipelines.text_network import FEATURES, TextNetworkPipeline
from ctxrecon.precision import placed
from ctxrecon.reconstructors import Reconstructor


class ReconstructionPipeline(TextNetworkPipeline):
    """Reconstruction with any :class:`~ctxrecon.reconstructors.Reconstructor` network.

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import ReconstructionPipeline
        >>> from ctxrecon.reconstructors import VarNet
        >>> pipe = ReconstructionPipeline(VarNet(width=4, depth=1, cascades=1))
        >>> output = pipe(torch.ones(16, 16, dtype=torch.complex64))
        >>> output.images.shape
        torch.Size([1, 16, 16])

    Args:
        reconstructor: Reconstruction network.
        text_encoder: Text encoder; ``None`` for networks that ignore the prompt.
        tokenizer: Tokenizer of the text encoder; ``None`` for networks that ignore the prompt.

    Raises:
        InputError: If the network reads prompts and there is no text encoder of its width.
    """

    reconstructor: Reconstructor

    @classmethod
    def from_pretrained(cls, path: Any, **options: Any) -> ReconstructionPipeline:
        """Load a pipeline; see :func:`load_reconstructor`."""
        return load_reconstructor(path, **options)

    @overload
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = ...,
        prompt: str | list[str] | None = ...,
        *,
        coil_maps: ArrayLike | None = ...,
        operator: LinearOperator | None = ...,
        batch_size: int | None = ...,
        output_type: Literal["pt"] = ...,
        return_dict: Literal[True] = ...,
    ) -> ReconstructionOutput[Tensor]: ...

    @overload
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = ...,
        prompt: str | list[str] | None = ...,
        *,
        coil_maps: ArrayLike | None = ...,
        operator: LinearOperator | None = ...,
        batch_size: int | None = ...,
        output_type: str = ...,
        return_dict: Literal[True] = ...,
    ) -> ReconstructionOutput[Images]: ...

    @overload
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = ...,
        prompt: str | list[str] | None = ...,
        *,
        coil_maps: ArrayLike | None = ...,
        operator: LinearOperator | None = ...,
        batch_size: int | None = ...,
        output_type: str = ...,
        return_dict: Literal[False],
    ) -> tuple: ...

    @torch.no_grad()
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = None,
        prompt: str | list[str] | None = None,
        *,
        coil_maps: ArrayLike | None = None,
        operator: LinearOperator | None = None,
        batch_size: int | None = None,
        output_type: str = "pt",
        return_dict: bool = True,
    ) -> ReconstructionOutput[Images] | tuple:
        """Reconstruct one slice or a batch of slices of any matrix size.

        Args:
            kspace: Centered complex k-space of shape ``(batch, coils, ny, nx)``,
                ``(coils, ny, nx)`` or ``(ny, nx)``, NumPy or torch; or a
                :class:`~ctxrecon.Measurement`, which includes the mask and the coil maps.
            mask: Sampling mask; see ``Measurement.from_arrays``.
            prompt: Metadata such as ``"Knee, PDFS, TR: 3150"``: one prompt for all slices or a list
                with one per slice. Networks without text input ignore it, which is logged.
            coil_maps: Coil maps of shape ``(coils, ny, nx)`` or ``(batch or 1, coils, ny, nx)``,
                complex, ``Σ_c |S_c|² = 1``; by default estimated from the calibration region.
            operator: Forward operator ``A`` if it is not ``M F S``; ``kspace`` is then its data.
            batch_size: Slices reconstructed at once; the default needs little memory (four slices
                of 320 × 320).
            output_type: Type of the images: "pt", "np" (complex) or "pil" (magnitude).
            return_dict: If ``False``, return the tuple (images, expected_error, residual,
                coil_maps, prompts).

        Returns:
            ``images``; ``expected_error``, the error of each pixel if the network predicts it; the
            ``residual`` ``‖A x − y‖/‖y‖`` of ``images``; ``coil_maps``.

        Raises:
            InputError: If an argument is malformed or the result contains NaN or infinite values.
        """
        check_output_type(output_type)
        slices = count_slices(kspace, operator)
        if batch_size is not None:
            check_whole("batch_size", batch_size)
        prompts, embeds = self._read_prompts(prompt, slices)
        measurement = prepare_measurement(kspace, mask, coil_maps, operator=operator)
        measurement = measurement.to(self._execution_device)
        work, _ = measurement.normalized()
        images, error = self._reconstruct(work, embeds, batch_size)
        self.maybe_free_model_hooks()
        output = build_output(
            images, measurement, output_type, expected_error=error, prompts=prompts
        )
        if return_dict:
            return output
        return (
            output.images,
            output.expected_error,
            output.residual,
            output.coil_maps,
            output.prompts,
        )

    def _reconstruct(
        self, measurement: Measurement, embeds: Tensor | None, batch_size: int | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return images and expected errors, computed batch by batch."""
        filled = measurement.filled
        at_once = batch_size or images_at_once(FEATURES, measurement.image_shape)
        batches = image_batches(filled, measurement.number_of_sets, at_once)
        images: list[Tensor] = []
        errors: list[Tensor] = []
        with named_progress_bar(self, "reconstruction", len(filled)) as bar:
            for chosen in batches:
                owner = filled[chosen]
                batch = measurement[owner]
                output = self.reconstructor(
                    batch.operator, batch.y, None if embeds is None else embeds[owner]
                )
                images.append(output.images)
                if output.expected_error is not None:
                    errors.append(output.expected_error)
                bar.update(len(owner))
        index = filled[torch.cat(batches)] if batches else filled
        like = measurement.y.new_zeros((len(measurement), *measurement.operator.domain_shape[1:]))
        error = scatter_slices(errors, index, like.real) if errors else None
        return scatter_slices(images, index, like), error


def load_reconstructor(
    path: str | Path | None = None,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device | None = None,
) -> ReconstructionPipeline:
    """Load a network that reconstructs directly.

    Example:
        >>> from ctxrecon.pipelines import load_reconstructor
        >>> load_reconstructor().reconstructor.text_width is None
        True

    Args:
        path: Folder or hub repository with ``reconstructor/`` and, for networks that read prompts,
            ``text_encoder/`` and ``tokenizer/``; by default the network shipped with the package.
        dtype: Precision of the networks: float32, bfloat16 or float16, or its name; the
            measurement stays complex64.
        device: Device of the pipeline (default: CPU).

    Raises:
        InputError: If a component is missing, damaged or incompatible.
    """
    place = placed(dtype, device)
    return ReconstructionPipeline(**reconstructor_components(path, dtype=dtype)).to(place)
