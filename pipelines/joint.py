"""Several contrasts of one slice, sampled by a learned pattern and reconstructed together."""

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
from ctxrecon.checks import as_device, check_number
from ctxrecon.errors import InputError
from ctxrecon.inference.arguments import check_generator
from ctxrecon.inference.batches import check_finite, report
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
from ctxrecon.reconstructors import (
    MultiContrastOutput,
    MultiContrastReconstructor,
    Reconstructor,
    reconstruct_contrasts,
)
from ctxrecon.tasks import T2StarMLP


@dataclass
class JointOutput(BaseOutput):
    """Reconstructions of several contrasts; read the fields by name.

    Attributes:
        images: ``(batch, contrasts, ny, nx)`` complex64.
        masks: ``(batch, contrasts, 1, ny, nx)`` bool, what was sampled.
        residual: ``(batch, contrasts)`` float32 relative data residual ``‖A x − y‖ / ‖y‖``.
        t2star: ``(batch, ny, nx)`` float32 T2* in ms; ``None`` for contrasts that are no echoes.
        expected_error: ``(batch, contrasts, ny, nx)`` float32, the error that the network
            expects of each pixel; ``None`` where it predicts none.
        coil_maps: ``(batch or 1, coils, ny, nx)`` complex64; ``None`` for a single coil.
        prompts: of each slice and contrast, or ``None`` where none are read.
        stages: what had been sampled at the end of each stage before the last, the centre first,
            and what it gave; ``None`` unless asked for.
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
    """A sampler and a reconstructor that were trained together, and a map of the tissue.

    Example:
        >>> output = load_joint("runs/joint/pipeline")(kspace, acceleration=4)
        >>> output.images, output.masks, output.t2star

    Args:
        reconstructor: of several contrasts, or of one, which then takes each by itself.
        sampler: chooses the masks, in any of :data:`~ctxrecon.masks.learned.SAMPLERS`.
        relaxometer: T2* from the echoes; ``None`` for contrasts that are no echoes.
        text_encoder: of reconstructors that read prompts.
        tokenizer: of the text encoder.
        contrasts: how many it was trained with; calls may have others where sampler and network
            take them.

    Raises:
        InputError: a network that reads prompts without a text encoder of its width.
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
        """:func:`load_joint`."""
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
        """Reconstruct every contrast.

        Args:
            kspace: complex and centred, ``(batch, contrasts, coils, ny, nx)``, or
                ``(contrasts, coils, ny, nx)`` for one slice; NumPy or torch. Fully sampled, for the
                sampler to choose from; or as a scanner measured it, with ``mask``.
            mask: ``(batch or 1, contrasts or 1, 1, ny, nx)`` or ``(contrasts, 1, ny, nx)``, bool or
                numbers 0 and 1: where k-space was sampled. ``None`` takes the sampler's masks.
            prompt: metadata such as ``"Knee, PDFS, TR: 3150"``: one, one for each contrast, or such
                a list for each slice; a network that reads none leaves it aside.
            acceleration: of the sampler's masks, by default its own; not with ``mask``.
            coil_maps: ``(coils, ny, nx)`` or ``(batch or 1, coils, ny, nx)``, of all contrasts;
                estimated if not given, from the contrast with the most signal where all its
                neighbours are sampled.
            generator: source of the masks: one, or a list with one for each slice.
            stages: whether to give what each stage of a sampler that chooses in stages had, too:
                the lower ratios that SeqMRI passes through.

        Raises:
            InputError: for each malformed argument, in a sentence of its own.
        """
        if acceleration is not None:
            check_number("acceleration", acceleration, least=1)
        y, leading = check_contrasts(kspace)
        check_generator(generator, leading[0])
        prompts = contrast_prompts(prompt, leading)
        if mask is not None and acceleration is not None:
            raise InputError("an acceleration is of the sampler's own masks: leave it or mask out")
        if stages and (mask is not None or not isinstance(self.sampler, AdaptiveSampler)):
            raise InputError(
                "stages are of masks that a sampler chooses in stages, such as sequential or "
                "greedy: leave stages out"
            )
        device = self._execution_device
        if mask is None and tuple(y.shape[-2:]) != self.sampler.shape:
            raise InputError(
                f"the sampler is of the matrix {self.sampler.shape}, k-space of "
                f"{tuple(y.shape[-2:])}: give a mask, or train one of that size"
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
        # A contrast without signal is there as zeros, so that the network has what it expects.
        y = y.masked_fill(empty[:, :, None, None, None], 0)
        if maps is None and y.shape[2] > 1:
            maps = shared_coil_maps(y, self._center(acceleration) if given is None else given)
        gain = torch.ones(1, device=device) if maps is None else maps_gain(maps)
        y = y / gain[:, None, None, None, None]
        work = None if maps is None else maps / gain[:, None, None, None]
        embeds = self._embeds(prompts)

        def measure(masks: Tensor) -> MultiContrastOutput:
            """What the network makes of the samples that these masks take."""
            masks = masks.expand(*leading, -1, -1, -1)
            operators = [CartesianSense(masks[:, c], work) for c in range(leading[1])]
            return reconstruct_contrasts(self.reconstructor, operators, y * masks, embeds)

        if given is None:
            drawn = self._draw(measure, leading, acceleration, generator)
            drawn = drawn if stages else drawn[-1:]
            every = [keep_measured(y, masks.to(device), empty) for masks in drawn]
        else:
            every = [given]
        inside = ~empty[:, :, None, None]
        if maps is not None:
            inside = inside & (maps != 0).any(dim=1)[:, None]

        def conclude(masks: Tensor) -> JointOutput:
            """What the network makes of these samples, all of it."""
            masks = masks.expand(*leading, -1, -1, -1)
            output = measure(masks)
            images = torch.where(inside, output.images, 0)
            error = output.expected_error
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

        outputs = [conclude(masks) for masks in every]
        self.maybe_free_model_hooks()
        found = outputs.pop()
        report(found.residual, empty)
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
        """Masks ``(batch, contrasts or 1, 1, ny, nx)`` of the sampler, of each stage if it has any.

        Each has what those before it have; the last one is the mask.
        """
        if isinstance(self.sampler, AdaptiveSampler):
            if leading[1] != 1:
                raise InputError(
                    f"this {type(self.sampler).__name__} chooses by one image: expected one "
                    f"contrast, got {leading[1]}"
                )
            options = {} if isinstance(self.sampler, GreedyPolicy) else {"generator": generator}

            def image(mask: Tensor) -> Tensor:
                return measure(mask[:, None]).images[:, 0]

            drawn = self.sampler(image, acceleration, **options)
            return [taken[:, None] for taken in drawn.so_far]
        masks = self.sampler(acceleration, leading[0], generator)
        if masks.ndim == 4:
            return [masks[:, None]]
        if masks.shape[1] != leading[1]:
            raise InputError(
                f"the sampler has masks for {masks.shape[1]} contrasts, k-space has {leading[1]}"
            )
        return [masks]

    def _center(self, acceleration: float | None) -> Tensor:
        """What every mask of the sampler takes, ``(1, 1, 1, ny, nx)`` bool."""
        center = self.sampler.budget(acceleration).center.to(self._execution_device)
        return self.sampler.as_mask(center)[None, None, None]

    def _embeds(self, prompts: list[list[str]]) -> Tensor | None:
        """Embeddings ``(batch, contrasts, width)``, if the network reads prompts."""
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
        path: a folder or a hub repository with ``sampler/`` and ``reconstructor/``; for T2* maps
            ``relaxometer/``, and for networks that read prompts ``text_encoder/`` and
            ``tokenizer/``.
        dtype: of the networks: float32, bfloat16 or float16, or its name; what concerns the
            measurement is complex64 in any case.
        device: where to put them; the CPU by default.

    Raises:
        InputError: a missing, damaged or unsuitable part, each in a sentence of its own.
    """
    place = as_device(device)
    return JointPipeline(**joint_components(path, dtype=dtype)).to(place)
