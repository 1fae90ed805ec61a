"""Reconstruction by a network that inverts the measurement directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from ctxrecon.arrays import ArrayLike
from ctxrecon.checks import as_device, check_whole
from ctxrecon.inference.batches import (
    conclude,
    image_batches,
    images_at_once,
    named_bar,
    put_back,
)
from ctxrecon.loading.components import reconstructor_components
from ctxrecon.measurement import Measurement, count_slices, prepare_measurement
from ctxrecon.operators import LinearOperator
from ctxrecon.output import Images, ReconstructionOutput, check_output_type
from ctxrecon.pipelines.text_network import FEATURES, TextNetworkPipeline
from ctxrecon.reconstructors import Reconstructor


class ReconstructionPipeline(TextNetworkPipeline):
    """Any :class:`~ctxrecon.reconstructors.Reconstructor` behind the call of the diffusion prior.

    Example:
        >>> output = load_reconstructor("runs/varnet/pipeline")(kspace, mask)

    Args:
        reconstructor: the network.
        text_encoder: of networks that read the prompt; ``None`` for others.
        tokenizer: of the text encoder.

    Raises:
        InputError: a network that reads prompts without a text encoder of its width.
    """

    reconstructor: Reconstructor

    @classmethod
    def from_pretrained(cls, path: Any, **options: Any) -> ReconstructionPipeline:
        """:func:`load_reconstructor`."""
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
            kspace: complex and centred, ``(batch, coils, ny, nx)``, ``(coils, ny, nx)`` or
                ``(ny, nx)``; NumPy or torch. Or a measurement of
                :class:`~ctxrecon.Measurement`, which holds mask and coil maps.
            mask: where k-space was sampled; see ``Measurement.from_arrays``.
            prompt: metadata such as ``"Knee, PDFS, TR: 3150"``, one for all slices or a list; a
                network that reads no prompt leaves it aside, and that is logged.
            coil_maps: complex, ``(coils, ny, nx)`` or ``(batch or 1, coils, ny, nx)``, with
                ``Σ_c |S_c|² = 1``; estimated from the calibration region if not given.
            operator: ``A``, where it is another one than ``M F S``; ``kspace`` is then its data.
            batch_size: slices at once; by default what takes little memory, four of 320 × 320.
            output_type: "pt", "np" (complex) or "pil" (magnitude).
            return_dict: ``False`` gives the tuple (images, expected_error, residual, coil_maps,
                prompts).

        Returns:
            ``images``; ``expected_error``, the error that the network expects of each pixel, where
            it predicts one; ``residual`` ``‖A x − y‖/‖y‖`` of ``images``; ``coil_maps``.

        Raises:
            InputError: for each malformed argument, in a sentence of its own.
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
        output = conclude(images, measurement, output_type, expected_error=error, prompts=prompts)
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
        """Images and expected errors, batch by batch."""
        filled = measurement.filled
        at_once = batch_size or images_at_once(FEATURES, measurement.image_shape)
        batches = image_batches(filled, measurement.number_of_sets, at_once)
        images: list[Tensor] = []
        errors: list[Tensor] = []
        with named_bar(self, "reconstruction", len(filled)) as bar:
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
        error = put_back(errors, index, like.real) if errors else None
        return put_back(images, index, like), error


def load_reconstructor(
    path: str | Path | None = None,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device | None = None,
) -> ReconstructionPipeline:
    """Load a network that reconstructs directly.

    Args:
        path: a folder or a hub repository with ``reconstructor/`` and, for networks that read
            prompts, ``text_encoder/`` and ``tokenizer/``; the network that comes with the package
            by default.
        dtype: of the networks: float32, bfloat16 or float16, or its name; what concerns the
            measurement is complex64 in any case.
        device: where to put them; the CPU by default.

    Raises:
        InputError: a missing, damaged or unsuitable part, each in a sentence of its own.
    """
    place = as_device(device)
    return ReconstructionPipeline(**reconstructor_components(path, dtype=dtype)).to(place)
