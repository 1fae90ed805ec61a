"""Reconstruction guided by a fully sampled scan of another contrast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from ctxrecon.arrays import ArrayLike, as_tensor
from ctxrecon.checks import check_whole
from ctxrecon.errors import InputError
from ctxrecon.inference.batches import (
    build_output,
    check_finite,
    image_batches,
    images_at_once,
    named_progress_bar,
    scatter_slices,
)
from ctxrecon.loading.components import cross_modal_components
from ctxrecon.measurement import Measurement, count_slices, prepare_measurement
from ctxrecon.operators import SoftSense
from ctxrecon.output import Images, ImagesT_co, ReconstructionOutput, check_output_type
from ctxrecon.pipelines.text_network import FEATURES, TextNetworkPipeline
from ctxrecon.precision import placed
from ctxrecon.reconstructors import CrossModal


@dataclass
class CrossModalReconstruction(ReconstructionOutput[ImagesT_co]):
    """Reconstruction together with the aligned and the synthetic reference.

    Access the fields by name.

    Attributes:
        aligned: Reference warped onto the grid of ``images``, complex64 ``(batch, ny, nx)``.
        synthetic: Aligned reference translated to the contrast of ``images``, complex64
            ``(batch, ny, nx)``.
        displacement: Displacement field in pixels along ``ny`` and ``nx``, float32
            ``(batch, 2, ny, nx)``: ``aligned`` at ``p`` is the reference at
            ``p + displacement(p)``.
    """

    aligned: Tensor | None = None
    synthetic: Tensor | None = None
    displacement: Tensor | None = None


class CrossModalPipeline(TextNetworkPipeline):
    """Reconstruction with a :class:`~ctxrecon.reconstructors.CrossModal` network and a reference.

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import CrossModalPipeline
        >>> from ctxrecon.reconstructors import CrossModal
        >>> network = CrossModal(width=4, depth=1, cascades=1, synthesis_cascades=1, align_width=4)
        >>> kspace, reference = torch.ones(16, 16, dtype=torch.complex64), torch.ones(16, 16)
        >>> output = CrossModalPipeline(network)(kspace, reference=reference)
        >>> output.images.shape, output.displacement.shape
        (torch.Size([1, 16, 16]), torch.Size([1, 2, 16, 16]))

    Args:
        reconstructor: Reconstruction network.
        text_encoder: Text encoder; ``None`` for networks that ignore the prompt.
        tokenizer: Tokenizer of the text encoder; ``None`` for networks that ignore the prompt.

    Raises:
        InputError: If the network reads prompts and there is no text encoder of its width.
    """

    reconstructor: CrossModal

    @classmethod
    def from_pretrained(cls, path: Any, **options: Any) -> CrossModalPipeline:
        """Load a pipeline; see :func:`load_cross_modal`."""
        return load_cross_modal(path, **options)

    @overload
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = ...,
        prompt: str | list[str] | None = ...,
        *,
        reference: ArrayLike,
        coil_maps: ArrayLike | None = ...,
        batch_size: int | None = ...,
        output_type: Literal["pt"] = ...,
        return_dict: Literal[True] = ...,
    ) -> CrossModalReconstruction[Tensor]: ...

    @overload
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = ...,
        prompt: str | list[str] | None = ...,
        *,
        reference: ArrayLike,
        coil_maps: ArrayLike | None = ...,
        batch_size: int | None = ...,
        output_type: str = ...,
        return_dict: Literal[True] = ...,
    ) -> CrossModalReconstruction[Images]: ...

    @overload
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = ...,
        prompt: str | list[str] | None = ...,
        *,
        reference: ArrayLike,
        coil_maps: ArrayLike | None = ...,
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
        reference: ArrayLike,
        coil_maps: ArrayLike | None = None,
        batch_size: int | None = None,
        output_type: str = "pt",
        return_dict: bool = True,
    ) -> CrossModalReconstruction[Images] | tuple:
        """Reconstruct one slice or a batch of slices of any matrix size.

        Args:
            kspace: Centered complex k-space of shape ``(batch, coils, ny, nx)``,
                ``(coils, ny, nx)`` or ``(ny, nx)``, NumPy or torch; or a
                :class:`~ctxrecon.Measurement`, which includes the mask and the coil maps.
            mask: Sampling mask; see ``Measurement.from_arrays``.
            prompt: Metadata of the measurement such as ``"Brain, T2, TR: 5000"``: one prompt for
                all slices or a list with one per slice. Networks without text input ignore it,
                which is logged.
            reference: Fully sampled image of the other contrast, complex or magnitude, in arbitrary
                units, of shape ``(batch or 1, ny, nx)`` or ``(ny, nx)``. It must have the field of
                view and matrix of the images and show nearly the same anatomy.
            coil_maps: Coil maps of shape ``(coils, ny, nx)`` or ``(batch or 1, coils, ny, nx)``,
                complex, ``Σ_c |S_c|² = 1``; by default estimated from the calibration region.
            batch_size: Slices reconstructed at once; the default needs little memory (four slices
                of 320 × 320).
            output_type: Type of ``images``: "pt", "np" (complex) or "pil" (magnitude).
            return_dict: If ``False``, return the tuple (images, aligned, synthetic, displacement,
                residual, coil_maps, prompts).

        Returns:
            ``images``; the derived references ``aligned``, ``synthetic`` and ``displacement``; the
            ``residual`` ``‖A x − y‖/‖y‖`` of ``images``; ``coil_maps``.

        Raises:
            InputError: If an argument is malformed or the result contains NaN or infinite values.
        """
        check_output_type(output_type)
        slices = count_slices(kspace)
        if batch_size is not None:
            check_whole("batch_size", batch_size)
        prompts, embeds = self._read_prompts(prompt, slices)
        measurement = prepare_measurement(kspace, mask, coil_maps)
        image = check_reference(reference, measurement)
        measurement = measurement.to(self._execution_device)
        work, _ = measurement.normalized()
        images, of_reference = self._reconstruct(
            work, image.to(self._execution_device), embeds, batch_size
        )
        self.maybe_free_model_hooks()
        check_finite(*of_reference.values())
        found = build_output(images, measurement, output_type, prompts=prompts)
        output = CrossModalReconstruction(
            images=found.images,
            residual=found.residual,
            coil_maps=found.coil_maps,
            prompts=found.prompts,
            aligned=of_reference["aligned"],
            synthetic=of_reference["synthetic"],
            displacement=of_reference["displacement"],
        )
        if return_dict:
            return output
        return (
            output.images,
            output.aligned,
            output.synthetic,
            output.displacement,
            output.residual,
            output.coil_maps,
            output.prompts,
        )

    def _reconstruct(
        self,
        measurement: Measurement,
        reference: Tensor,
        embeds: Tensor | None,
        batch_size: int | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the images and, by name, the images derived from the reference."""
        filled = measurement.filled
        at_once = batch_size or images_at_once(FEATURES, measurement.image_shape)
        batches = image_batches(filled, measurement.number_of_sets, at_once)
        names = ("images", "aligned", "synthetic", "displacement")
        found: dict[str, list[Tensor]] = {name: [] for name in names}
        with named_progress_bar(self, "reconstruction", len(filled)) as bar:
            for chosen in batches:
                owner = filled[chosen]
                batch = measurement[owner]
                output = self.reconstructor(
                    batch.operator,
                    batch.y,
                    reference[owner],
                    None if embeds is None else embeds[owner],
                )
                for name in names:
                    found[name].append(output[name])
                bar.update(len(owner))
        index = filled[torch.cat(batches)] if batches else filled
        field = found.pop("displacement")
        made = {name: scatter_slices(values, index, reference) for name, values in found.items()}
        ny, nx = reference.shape[1:]
        rows = scatter_slices(
            [one.flatten(1, 2) for one in field], index, reference.real.repeat(1, 2, 1)
        )
        made["displacement"] = rows.view(len(reference), 2, ny, nx)
        return made.pop("images"), made


def check_reference(reference: ArrayLike, measurement: Measurement) -> Tensor:
    """Validate the reference and return it as complex64 ``(batch, ny, nx)``.

    Raises:
        InputError: If the measurement has two sets of coil maps, or the reference has the wrong
            shape, is not finite or has no signal.
    """
    if isinstance(measurement.operator, SoftSense):
        raise InputError(
            "expected one set of coil maps, got two, which this network does not support: pass "
            "coil_maps, such as estimate_coil_maps(kspace, mask, num_maps=1) of ctxrecon.coils"
        )
    image = as_tensor(reference, "the reference")
    image = image[None] if image.ndim == 2 else image
    wanted = (len(measurement), *measurement.image_shape)
    if image.ndim != 3 or image.shape[1:] != wanted[1:] or len(image) not in (1, wanted[0]):
        raise InputError(
            f"expected a reference of shape {wanted}, one image for each slice, got "
            f"{tuple(image.shape)}: resample it to the matrix of the scan"
        )
    image = image.to(torch.complex64)
    if not bool(torch.isfinite(torch.view_as_real(image)).all()):
        raise InputError("the reference contains NaN or infinite values: check how it was computed")
    if not bool(image.any()):
        raise InputError("the reference is empty: pass an image with signal")
    return image.expand(wanted)


def load_cross_modal(
    path: str | Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device | None = None,
) -> CrossModalPipeline:
    """Load a network that reconstructs with a reference image.

    Args:
        path: Folder or hub repository with ``reconstructor/`` and, for networks that read prompts,
            ``text_encoder/`` and ``tokenizer/``.
        dtype: Precision of the networks: float32, bfloat16 or float16, or its name; the
            measurement stays complex64.
        device: Device of the pipeline (default: CPU).

    Raises:
        InputError: If a component is missing, damaged or incompatible.
    """
    place = placed(dtype, device)
    return CrossModalPipeline(**cross_modal_components(path, dtype=dtype)).to(place)
