"""Segmentations or findings directly from undersampled k-space, with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from ctxrecon.arrays import ArrayLike, check_kspace
from ctxrecon.checks import check_number, check_whole
from ctxrecon.errors import InputError
from ctxrecon.inference.arguments import check_generator
from ctxrecon.inference.batches import check_finite, images_at_once, log_residuals, spawn_generators
from ctxrecon.inference.contrasts import find_empty_contrasts, keep_measured
from ctxrecon.loading.components import task_components
from ctxrecon.masks.learned import GreedyPolicy, MaskNetwork, SequentialSampler
from ctxrecon.measurement import Measurement, prepare_measurement
from ctxrecon.precision import placed
from ctxrecon.tasks import FindingClassifier, ImageDecoder, LatentSegmenter, Segmenter


@dataclass
class TaskOutput(BaseOutput):
    """Result of a task on undersampled k-space; access the fields by name.

    Attributes:
        probabilities: For segmentation, mean class probabilities of each pixel over the samples,
            float32 ``(batch, num_classes, ny, nx)``, background first. For findings, probabilities
            ``(batch, findings)``.
        masks: Sampling masks, bool ``(batch or 1, 1, ny, nx)``.
        samples: Segmentation samples, uint8 class indices ``(batch, num_samples, ny, nx)``;
            ``None`` for findings.
        disagreement: Fraction of the pairs of samples with different classes in each pixel, float32
            ``(batch, ny, nx)``; ``None`` for findings and for single samples.
        images: Images, complex64 ``(batch, ny, nx)``; ``None`` if the model does not compute them.
        std: Expected error of each pixel of ``images``, float32 ``(batch, ny, nx)``.
        coil_maps: Coil maps, complex64 ``(batch or 1, coils, ny, nx)``; ``None`` for a single coil.
    """

    probabilities: Tensor
    masks: Tensor
    samples: Tensor | None = None
    disagreement: Tensor | None = None
    images: Tensor | None = None
    std: Tensor | None = None
    coil_maps: Tensor | None = None


class TaskPipeline(DiffusionPipeline):
    """A k-space sampler and a network that solves a task from its samples, trained together.

    Implements algorithms 3 and 5 of InfoMRI. The result is a set of segmentation samples, with an
    image if the model has an image decoder, or the probabilities of findings.

    Example:
        >>> import torch
        >>> from ctxrecon.masks.learned import LOUPE
        >>> from ctxrecon.pipelines import TaskPipeline
        >>> from ctxrecon.tasks import FindingClassifier
        >>> network = FindingClassifier(["meniscus tear"], width=4)
        >>> pipe = TaskPipeline(LOUPE((32, 32), 4.0), network, classes=["meniscus tear"])
        >>> pipe(torch.ones(32, 32, dtype=torch.complex64)).probabilities.shape
        torch.Size([1, 1])

    Args:
        sampler: Sampler that chooses the masks, one of :data:`~ctxrecon.masks.learned.SAMPLERS`
            that does not depend on an image.
        network: Segmentation network, a :class:`~ctxrecon.tasks.Segmenter` such as
            :class:`~ctxrecon.tasks.LatentSegmenter`; or a
            :class:`~ctxrecon.tasks.FindingClassifier`.
        image_decoder: Decoder of a latent segmenter's features into images; ``None`` for models
            without images or with images as an intermediate result.
        classes: Names of the segmented classes or findings, without the background.

    Raises:
        InputError: If the sampler depends on images or has several contrasts, an image decoder is
            passed with a network that is not a latent segmenter, or the number of names is wrong.
    """

    model_cpu_offload_seq = "sampler->network->image_decoder"
    _optional_components = ["image_decoder"]  # noqa: RUF012 (read so by diffusers)

    sampler: Any
    network: Segmenter | FindingClassifier
    image_decoder: ImageDecoder | None

    def __init__(
        self,
        sampler: MaskNetwork,
        network: Segmenter | FindingClassifier,
        image_decoder: ImageDecoder | None = None,
        classes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        adaptive = isinstance(sampler, SequentialSampler | GreedyPolicy)
        if adaptive or hasattr(sampler, "contrasts"):  # their masks have an axis of contrasts
            raise InputError(
                f"expected a sampler of one contrast that does not depend on images, got "
                f"{type(sampler).__name__}: pass another sampler"
            )
        if isinstance(network, FindingClassifier):
            count = len(network.config.findings)
        else:
            count = network.config.num_classes - 1
        if image_decoder is not None and not isinstance(network, LatentSegmenter):
            raise InputError(
                f"an image decoder needs the features of a latent segmenter, got a "
                f"{type(network).__name__}: remove the decoder"
            )
        if len(classes) != count:
            raise InputError(f"expected {count} names of classes, got {list(classes)}")
        self.register_modules(sampler=sampler, network=network, image_decoder=image_decoder)
        self.register_to_config(classes=list(classes))

    @classmethod
    def from_pretrained(cls, path: Any, **options: Any) -> TaskPipeline:
        """Load a pipeline; see :func:`load_task`."""
        return load_task(path, **options)

    @torch.no_grad()
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = None,
        *,
        acceleration: float | None = None,
        num_samples: int = 8,
        coil_maps: ArrayLike | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        batch_size: int | None = None,
    ) -> TaskOutput:
        """Segment every slice, or estimate the probabilities of its findings.

        Args:
            kspace: Centered complex k-space of shape ``(batch, coils, ny, nx)``,
                ``(coils, ny, nx)`` or ``(ny, nx)``, NumPy or torch. Fully sampled if the sampler is
                to choose the samples; undersampled together with ``mask`` or as a
                :class:`~ctxrecon.Measurement`.
            mask: Sampling mask; see ``Measurement.from_arrays``. ``None`` uses the sampler's masks.
            acceleration: Acceleration factor of the sampler's masks; ``None`` uses the sampler's
                default. Cannot be combined with ``mask``.
            num_samples: Segmentation samples per slice; the published curves are flat from 8 on.
            coil_maps: Coil maps of shape ``(coils, ny, nx)`` or ``(batch or 1, coils, ny, nx)``; by
                default estimated.
            generator: Random generator of masks and samples, or a list with one per slice. Results
                do not depend on the batching, and a larger ``num_samples`` extends the same
                sequence of samples.
            batch_size: Samples decoded at once; the default needs little memory.

        Returns:
            Probabilities, samples and, where available, images, with the masks. Slices without
            signal have NaN probabilities.

        Raises:
            InputError: If an argument is malformed or the result contains NaN or infinite values.
        """
        check_whole("num_samples", num_samples)
        if batch_size is not None:
            check_whole("batch_size", batch_size)
        if acceleration is not None:
            check_number("acceleration", acceleration, least=1)
        chosen = mask is not None or isinstance(kspace, Measurement)
        if chosen and acceleration is not None:
            raise InputError(
                "acceleration applies to the sampler's masks: pass either acceleration or a mask"
            )
        if chosen:
            measurement = prepare_measurement(kspace, mask, coil_maps)
            check_generator(generator, len(measurement))
            sources = spawn_generators(generator, len(measurement), 1)
            empty = measurement.empty
        else:
            y = check_kspace(kspace)  # type: ignore[arg-type]
            check_generator(generator, len(y))
            sources = spawn_generators(generator, len(y), 1)
            masks, empty = self._draw(y, acceleration, sources)
            measurement = Measurement.from_arrays(y * masks, masks, coil_maps)
        measurement = measurement.to(self._execution_device)
        if measurement.mask is None:
            raise InputError("expected Cartesian k-space, got data of another operator")
        work, _ = measurement.normalized()
        zero_filled = work.combine(work.operator.adjoint(work.y))
        empty = empty.to(zero_filled.device)
        if isinstance(self.network, FindingClassifier):
            found = self._findings(zero_filled, empty)
        else:
            found = self._segmentations(zero_filled, sources, num_samples, batch_size)
        self.maybe_free_model_hooks()
        log_residuals(torch.zeros(len(empty)), empty.cpu())
        for name, value in found.items():
            nothing = torch.nan if name == "probabilities" else 0
            found[name] = value.masked_fill(empty.view(-1, *[1] * (value.ndim - 1)), nothing)
        return TaskOutput(masks=measurement.mask, coil_maps=measurement.coil_maps, **found)

    def _draw(
        self, y: Tensor, acceleration: float | None, sources: list[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Return the sampler's masks within the measured samples, and which slices are empty."""
        if tuple(y.shape[-2:]) != self.sampler.shape:
            raise InputError(
                f"expected k-space of the matrix {self.sampler.shape}, for which the sampler was "
                f"trained, got {tuple(y.shape[-2:])}: pass a mask, or train a sampler of that size"
            )
        drawn = self.sampler(acceleration, len(y), sources).to(y.device)
        everything = torch.ones_like(drawn[:1, None])
        empty = find_empty_contrasts(y[:, None], everything)
        return keep_measured(y[:, None], drawn[:, None], empty)[:, 0], empty[:, 0]

    def _findings(self, zero_filled: Tensor, empty: Tensor) -> dict[str, Tensor]:
        network: Any = self.network
        found = torch.sigmoid(network(zero_filled))
        check_finite(found.masked_fill(empty[:, None], 0)[:, None])
        return {"probabilities": found}

    def _segmentations(
        self,
        zero_filled: Tensor,
        sources: list[torch.Generator],
        num_samples: int,
        batch_size: int | None,
    ) -> dict[str, Tensor]:
        """Return samples, probabilities and images, computed slice by slice."""
        network: Any = self.network
        shape = (zero_filled.shape[-2], zero_filled.shape[-1])
        at_once = batch_size or images_at_once(network.config.width, shape)
        rows: list[dict[str, Tensor]] = []
        for image, source in zip(zero_filled, sources, strict=True):
            features, scale = network.encode(image[None])
            noise = network.draw_noise(shape, spawn_generators(source, 1, num_samples))
            labels, total = [], torch.zeros((), device=image.device)
            for some in noise.split(at_once):
                logits = network.draws(features, some[None])[0]
                labels.append(logits.argmax(dim=1).to(torch.uint8))
                total = total + logits.softmax(dim=1).sum(dim=0)
            row = {"samples": torch.cat(labels), "probabilities": total / num_samples}
            if num_samples > 1:
                row["disagreement"] = disagreement(row["samples"], network.config.num_classes)
            if self.image_decoder is not None:
                images, std = self.image_decoder(features, scale, image[None])
                check_finite(images, std)
                row |= {"images": images[0], "std": std[0]}
            elif (found := network.images(features, scale)) is not None:
                check_finite(found)
                row["images"] = found[0]
            check_finite(row["probabilities"][None])
            rows.append(row)
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def disagreement(samples: Tensor, num_classes: int) -> Tensor:
    """Compute the fraction of pairs of samples that differ in each pixel, float32 ``(ny, nx)``.

    Args:
        samples: Class indices of shape ``(samples, ny, nx)``, two samples or more.
        num_classes: Number of classes including the background.
    """
    count = len(samples)
    votes = torch.stack([(samples == each).sum(dim=0) for each in range(num_classes)]).float()
    return 1 - (votes * (votes - 1)).sum(dim=0) / (count * (count - 1))


def load_task(
    path: str | Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device | None = None,
) -> TaskPipeline:
    """Load a k-space sampler and the network that solves a task from its samples.

    Args:
        path: Folder or hub repository with ``sampler/``, ``network/`` and optionally
            ``image_decoder/``.
        dtype: Precision of the networks: float32, bfloat16 or float16, or its name; the
            measurement stays complex64.
        device: Device of the pipeline (default: CPU).

    Raises:
        InputError: If a component is missing, damaged or incompatible.
    """
    place = placed(dtype, device)
    return TaskPipeline(**task_components(path, dtype=dtype)).to(place)
