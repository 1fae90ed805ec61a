"""Joint reconstruction of several contrasts of one slice, sampled with learned masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ctxrecon.arrays import ArrayLike, check_coil_maps
from ctxrecon.checks import check_number
from ctxrecon.errors import InputError
from ctxrecon.inference.arguments import check_generator
from ctxrecon.inference.batches import check_finite, images_at_once, log_residuals
from ctxrecon.inference.contrasts import (
    check_contrasts,
    check_masks,
    contrast_prompts,
    find_empty_contrasts,
    keep_measured,
    shared_coil_maps,
)
from ctxrecon.inference.prompts import check_text_width, prompt_tokens
from ctxrecon.loading.components import joint_components
from ctxrecon.masks.learned import AdaptiveSampler, GreedyPolicy, MaskNetwork
from ctxrecon.measurement import maps_gain
from ctxrecon.operators import CartesianSense
from ctxrecon.output import relative_residual
from ctxrecon.pipelines.text_network import FEATURES
from ctxrecon.precision import placed
from ctxrecon.reconstructors import (
    MultiContrastReconstructor,
    Reconstructor,
    reconstruct_contrasts,
)
from ctxrecon.tasks import T2StarMLP


@dataclass
class JointOutput(BaseOutput):
    """Reconstructions of several contrasts; access the fields by name.

    Attributes:
        images: Images, complex64 ``(batch, contrasts, ny, nx)``.
        masks: Sampling masks, bool ``(batch, contrasts, 1, ny, nx)``.
        residual: Relative data residual ``‖A x − y‖ / ‖y‖``, float32 ``(batch, contrasts)``.
        t2star: T2* map in ms, float32 ``(batch, ny, nx)``; ``None`` if the contrasts are not
            echoes.
        expected_error: Error of each pixel as predicted by the network, float32
            ``(batch, contrasts, ny, nx)``; ``None`` if the network does not predict it.
        coil_maps: Coil maps, complex64 ``(batch or 1, coils, ny, nx)``; ``None`` for a single coil.
        prompts: Prompts of each slice and contrast; ``None`` if the network ignores them.
        stages: Outputs after each acquisition stage before the last, starting with the center of
            k-space; ``None`` unless requested.
    """

    images: Tensor
    masks: Tensor
    residual: Tensor
    t2star: Tensor | None = None
    expected_error: Tensor | None = None
    coil_maps: Tensor | None = None
    prompts: list[list[str]] | None = None
    stages: list[JointOutput] | None = None


class JointPipeline(DiffusionPipeline):
    """Joint acquisition and reconstruction: a sampler and a network that were trained together.

    Example:
        >>> import torch
        >>> from ctxrecon.masks.learned import LOUPE
        >>> from ctxrecon.pipelines import JointPipeline
        >>> from ctxrecon.reconstructors import UNetReconstructor
        >>> pipe = JointPipeline(UNetReconstructor(width=4, depth=1), LOUPE((16, 16), 4.0))
        >>> output = pipe(torch.ones(1, 1, 1, 16, 16, dtype=torch.complex64))
        >>> output.images.shape, output.masks.shape
        (torch.Size([1, 1, 16, 16]), torch.Size([1, 1, 1, 16, 16]))

    Args:
        reconstructor: Network for several contrasts jointly, or a single-contrast network, which
            then reconstructs each contrast separately.
        sampler: Sampler that chooses the masks, one of :data:`~ctxrecon.masks.learned.SAMPLERS`.
        relaxometer: Network that maps T2* from the echoes; ``None`` if the contrasts are not
            echoes.
        text_encoder: Text encoder; ``None`` for networks that ignore the prompt.
        tokenizer: Tokenizer of the text encoder; ``None`` for networks that ignore the prompt.
        contrasts: Number of contrasts in training. Calls may pass another number if sampler and
            network support it.

    Raises:
        InputError: If the network reads prompts and there is no text encoder of its width.
    """

    model_cpu_offload_seq = "text_encoder->sampler->reconstructor->relaxometer"
    _optional_components = ["relaxometer", "text_encoder", "tokenizer"]  # noqa: RUF012

    reconstructor: Reconstructor | MultiContrastReconstructor
    sampler: Any
    relaxometer: T2StarMLP | None
    text_encoder: CLIPTextModel | None
    tokenizer: CLIPTokenizer | None

    def __init__(
        self,
        reconstructor: Reconstructor | MultiContrastReconstructor,
        sampler: MaskNetwork,
        relaxometer: T2StarMLP | None = None,
        text_encoder: CLIPTextModel | None = None,
        tokenizer: CLIPTokenizer | None = None,
        contrasts: int = 1,
    ) -> None:
        super().__init__()
        check_text_width(reconstructor.text_width, text_encoder, tokenizer)
        self.register_modules(
            reconstructor=reconstructor,
            sampler=sampler,
            relaxometer=relaxometer,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
        )
        self.register_to_config(contrasts=contrasts)

    @classmethod
    def from_pretrained(cls, path: Any, **options: Any) -> JointPipeline:
        """Load a pipeline; see :func:`load_joint`."""
        return load_joint(path, **options)

    @torch.no_grad()
    def __call__(
        self,
        kspace: ArrayLike,
        mask: ArrayLike | None = None,
        prompt: str | list[str] | list[list[str]] | None = None,
        *,
        acceleration: float | None = None,
        coil_maps: ArrayLike | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        stages: bool = False,
    ) -> JointOutput:
        """Reconstruct all contrasts of one slice or a batch of slices.

        Args:
            kspace: Centered complex k-space of shape ``(batch, contrasts, coils, ny, nx)``, or
                ``(contrasts, coils, ny, nx)`` for one slice, NumPy or torch. Fully sampled if the
                sampler is to choose the samples; undersampled together with ``mask``.
            mask: Sampling mask, bool or 0 and 1, of shape
                ``(batch or 1, contrasts or 1, 1, ny, nx)`` or ``(contrasts, 1, ny, nx)``. ``None``
                uses the sampler's masks.
            prompt: Metadata such as ``"Knee, PDFS, TR: 3150"``: one prompt, a list with one per
                contrast, or such a list for each slice. Networks without text input ignore it.
            acceleration: Acceleration factor of the sampler's masks; ``None`` uses the sampler's
                default. Cannot be combined with ``mask``.
            coil_maps: Coil maps shared by all contrasts, of shape ``(coils, ny, nx)`` or
                ``(batch or 1, coils, ny, nx)``. By default estimated from the contrast with the
                most signal in the fully sampled calibration region.
            generator: Random generator of the masks, or a list with one per slice.
            stages: If ``True``, also return the output after each stage of a sampler that chooses
                in stages; in SeqMRI these are the lower sampling ratios.

        Returns:
            The images with their masks, residuals and, where available, T2* and expected errors.

        Raises:
            InputError: If an argument is malformed or the result contains NaN or infinite values.
        """
        if acceleration is not None:
            check_number("acceleration", acceleration, least=1)
        y, leading = check_contrasts(kspace)
        check_generator(generator, leading[0])
        prompts = contrast_prompts(prompt, leading)
        if mask is not None and acceleration is not None:
            raise InputError(
                "acceleration applies to the sampler's masks: pass either acceleration or a mask"
            )
        if stages and (mask is not None or not isinstance(self.sampler, AdaptiveSampler)):
            raise InputError(
                "stages requires a sampler that chooses its mask in stages, such as sequential or "
                "greedy: leave stages out"
            )
        device = self._execution_device
        if mask is None and tuple(y.shape[-2:]) != self.sampler.shape:
            raise InputError(
                f"expected k-space of the sampler's matrix {self.sampler.shape}, got "
                f"{tuple(y.shape[-2:])}: pass a mask, or train a sampler of that size"
            )
        y = y.to(device)
        given = None if mask is None else check_masks(mask, y).to(device)
        everything = torch.ones_like(y[:1, :1, :1], dtype=torch.bool)
        empty = find_empty_contrasts(y, everything if given is None else given)
        maps = None
        if coil_maps is not None:
            shape = (leading[0], *y.shape[2:])
            maps = check_coil_maps(coil_maps, shape, empty.all(dim=1)).to(device)
        measured = y
        # Empty contrasts are zeroed, not removed, so that the network sees all of its inputs.
        y = y.masked_fill(empty[:, :, None, None, None], 0)
        if maps is None and y.shape[2] > 1:
            maps = shared_coil_maps(y, self._center(acceleration) if given is None else given)
        gain = torch.ones(1, device=device) if maps is None else maps_gain(maps)
        y = y / gain[:, None, None, None, None]
        work = None if maps is None else maps / gain[:, None, None, None]
        embeds = self._embeds(prompts)

        def measure(masks: Tensor) -> tuple[Tensor, Tensor | None]:
            """Return images and expected errors from the samples of these masks."""
            masks = masks.expand(*leading, -1, -1, -1)
            at_once = images_at_once(leading[1] * FEATURES, y.shape[3:])
            found = []
            for part in torch.arange(leading[0], device=device).split(at_once):
                own = work if work is None or len(work) == 1 else work[part]
                operators = [CartesianSense(masks[part, c], own) for c in range(leading[1])]
                words = None if embeds is None else embeds[part]
                data = y[part] * masks[part]
                found.append(reconstruct_contrasts(self.reconstructor, operators, data, words))
            errors = [one.expected_error for one in found if one.expected_error is not None]
            images = torch.cat([one.images for one in found])
            return images, torch.cat(errors) if errors else None

        if given is None:
            drawn = self._draw(measure, leading, acceleration, generator)
            drawn = drawn if stages else drawn[-1:]
            every = [keep_measured(y, masks.to(device), empty) for masks in drawn]
        else:
            every = [given]
        inside = ~empty[:, :, None, None]
        if maps is not None:
            inside = inside & (maps != 0).any(dim=1)[:, None]

        def build_output(masks: Tensor) -> JointOutput:
            """Return the complete output for these masks."""
            masks = masks.expand(*leading, -1, -1, -1)
            images, error = measure(masks)
            images = torch.where(inside, images, 0)
            error = None if error is None else torch.where(inside, error, 0)
            check_finite(images, error)
            predicted = [
                CartesianSense(masks[:, c], maps)(images[:, c].contiguous())
                for c in range(leading[1])
            ]
            residual = relative_residual(
                torch.stack(predicted, dim=1).flatten(0, 1), (measured * masks).flatten(0, 1)
            ).unflatten(0, leading)
            t2star = None if self.relaxometer is None else self.relaxometer(images)
            if t2star is not None:
                t2star = torch.where(empty.all(dim=1)[:, None, None], 0, t2star)
            return JointOutput(
                images=images,
                masks=masks,
                t2star=t2star,
                expected_error=error,
                residual=residual,
                coil_maps=maps,
                prompts=None if embeds is None else prompts,
            )

        outputs = [build_output(masks) for masks in every]
        self.maybe_free_model_hooks()
        found = outputs.pop()
        log_residuals(found.residual, empty)
        if stages:
            found.stages = outputs
        return found

    def _draw(
        self,
        measure: Any,
        leading: tuple[int, int],
        acceleration: float | None,
        generator: Any,
    ) -> list[Tensor]:
        """Return masks ``(batch, contrasts or 1, 1, ny, nx)`` of the sampler, one for each stage.

        Each mask includes the samples of the previous stages; the last one is the final mask.
        """
        if isinstance(self.sampler, AdaptiveSampler):
            if leading[1] != 1:
                raise InputError(
                    f"{type(self.sampler).__name__} chooses samples from one image: expected one "
                    f"contrast, got {leading[1]}"
                )
            options = {} if isinstance(self.sampler, GreedyPolicy) else {"generator": generator}

            def image(mask: Tensor) -> Tensor:
                return measure(mask[:, None])[0][:, 0]

            drawn = self.sampler(image, acceleration, **options)
            return [taken[:, None] for taken in drawn.so_far]
        masks = self.sampler(acceleration, leading[0], generator)
        if masks.ndim == 4:
            return [masks[:, None]]
        if masks.shape[1] != leading[1]:
            raise InputError(
                f"expected k-space of {masks.shape[1]} contrasts, as the sampler has masks for, "
                f"got {leading[1]}"
            )
        return [masks]

    def _center(self, acceleration: float | None) -> Tensor:
        """Return the center that all masks of the sampler share, bool ``(1, 1, 1, ny, nx)``."""
        center = self.sampler.budget(acceleration).center.to(self._execution_device)
        return self.sampler.as_mask(center)[None, None, None]

    def _embeds(self, prompts: list[list[str]]) -> Tensor | None:
        """Return embeddings ``(batch, contrasts, width)`` if the network reads prompts."""
        if self.reconstructor.text_width is None:
            return None
        assert self.text_encoder is not None
        flat = [text for slice_ in prompts for text in slice_]
        tokens = prompt_tokens(self.tokenizer, self.text_encoder, flat)
        found = self.text_encoder(tokens.to(self._execution_device)).pooler_output
        return found.unflatten(0, (len(prompts), len(prompts[0])))


def load_joint(
    path: str | Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device | None = None,
) -> JointPipeline:
    """Load a sampler and a reconstructor that were trained together.

    Args:
        path: Folder or hub repository with ``sampler/`` and ``reconstructor/``; optionally
            ``relaxometer/`` for T2* maps, and ``text_encoder/`` and ``tokenizer/`` for networks
            that read prompts.
        dtype: Precision of the networks: float32, bfloat16 or float16, or its name; the
            measurement stays complex64.
        device: Device of the pipeline (default: CPU).

    Raises:
        InputError: If a component is missing, damaged or incompatible.
    """
    place = placed(dtype, device)
    return JointPipeline(**joint_components(path, dtype=dtype)).to(place)
