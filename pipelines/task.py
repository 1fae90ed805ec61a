"""Segmentations or findings straight from k-space, sampled for them and as unsure as it leaves."""

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
from ctxrecon.checks import as_device, check_number, check_whole
from ctxrecon.errors import InputError
from ctxrecon.inference.arguments import check_generator
from ctxrecon.inference.batches import check_finite, images_at_once, report, spawn_generators
from ctxrecon.inference.contrasts import find_empty_contrasts, keep_measured
from ctxrecon.loading.components import task_components
from ctxrecon.masks.learned import GreedyPolicy, MaskNetwork, SequentialSampler
from ctxrecon.measurement import Measurement, prepare_measurement
from ctxrecon.tasks import FindingClassifier, ImageDecoder, LatentSegmenter, Segmenter


@dataclass
class TaskOutput(BaseOutput):
    """What was read from a measurement; read the fields by name.

    Attributes:
        probabilities: of segmentations ``(batch, num_classes, ny, nx)`` float32, of each pixel and
            class, the background first: the mean over the samples; of findings
            ``(batch, findings)``.
        masks: ``(batch or 1, 1, ny, nx)`` bool, what was sampled.
        samples: segmentations ``(batch, num_samples, ny, nx)`` uint8, classes of each pixel;
            ``None`` for findings.
        disagreement: ``(batch, ny, nx)`` float32, the share of pairs of samples whose class
            differs; ``None`` for findings and single samples.
        images: ``(batch, ny, nx)`` complex64; ``None`` from a model that gives none.
        std: ``(batch, ny, nx)`` float32, the error that is expected of each pixel of ``images``.
        coil_maps: ``(batch or 1, coils, ny, nx)`` complex64; ``None`` for a single coil.
    """

    probabilities: Tensor
    masks: Tensor
    samples: Tensor | None = None
    disagreement: Tensor | None = None
    images: Tensor | None = None
    std: Tensor | None = None
    coil_maps: Tensor | None = None


class TaskPipeline(DiffusionPipeline):
    """A sampler of k-space and a network that reads a task from its samples, trained together.

    InfoMRI's algorithms 3 and 5: what leaves is a segmentation, drawn several times, with its image
    if the model has that decoder; or the probabilities of findings and nothing else.

    Example:
        >>> output = load_task("runs/mass/pipeline")(kspace, acceleration=8, num_samples=8)
        >>> output.samples, output.probabilities, output.disagreement

    Args:
        sampler: chooses the masks: one of :data:`~ctxrecon.masks.learned.SAMPLERS` that looks at no
            image.
        network: a :class:`~ctxrecon.tasks.Segmenter`, such as
            :class:`~ctxrecon.tasks.LatentSegmenter`, or a
            :class:`~ctxrecon.tasks.FindingClassifier`.
        image_decoder: of a latent segmenter's features; ``None`` for a model that gives no images,
            or has them on the way.
        classes: names of what is segmented or found; the background is not among them.

    Raises:
        InputError: a sampler that looks at images or is of several contrasts, a decoder of images
            for another network than a latent segmenter, or another number of names.
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
        if adaptive or hasattr(sampler, "contrasts"):  # whose masks have an axis of contrasts
            raise InputError(
                f"a {type(sampler).__name__} chooses by images or for several contrasts: a task "
                "takes another sampler"
            )
        if isinstance(network, FindingClassifier):
            count = len(network.config.findings)
        else:
            count = network.config.num_classes - 1
        if image_decoder is not None and not isinstance(network, LatentSegmenter):
            raise InputError(
                f"an image decoder reads the features of a latent segmenter, and a "
                f"{type(network).__name__} gives no images by one: leave it out"
            )
        if len(classes) != count:
            raise InputError(f"expected {count} names of classes, got {list(classes)}")
        self.register_modules(sampler=sampler, network=network, image_decoder=image_decoder)
        self.register_to_config(classes=list(classes))

    @classmethod
    def from_pretrained(cls, path: Any, **options: Any) -> TaskPipeline:
        """:func:`load_task`."""
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
        """Read the task from every slice.

        Args:
            kspace: complex and centred, ``(batch, coils, ny, nx)``, ``(coils, ny, nx)`` or
                ``(ny, nx)``; NumPy or torch. Fully sampled, for the sampler to choose from; or as
                a scanner measured it, with ``mask`` or as a :class:`~ctxrecon.Measurement`.
            mask: where k-space was sampled, see ``Measurement.from_arrays``. ``None`` takes the
                sampler's masks.
            acceleration: of the sampler's masks, by default its own; not with ``mask``.
            num_samples: segmentations of each slice; the published curves are flat from 8 on.
            coil_maps: ``(coils, ny, nx)`` or ``(batch or 1, coils, ny, nx)``; estimated if not
                given.
            generator: source of masks and samples: one, or a list with one for each slice. Batches
                do not change results, and the first samples of many are those of few.
            batch_size: samples that are decoded at once; by default what takes little memory.

        Raises:
            InputError: for each malformed argument, in a sentence of its own.
        """
        check_whole("num_samples", num_samples)
        if batch_size is not None:
            check_whole("batch_size", batch_size)
        if acceleration is not None:
            check_number("acceleration", acceleration, least=1)
        chosen = mask is not None or isinstance(kspace, Measurement)
        if chosen and acceleration is not None:
            raise InputError("an acceleration is of the sampler's own masks: leave it or mask out")
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
            raise InputError("tasks are read from k-space on a grid, got data of another operator")
        work, _ = measurement.normalized()
        zero_filled = work.combine(work.operator.adjoint(work.y))
        empty = empty.to(zero_filled.device)
        if isinstance(self.network, FindingClassifier):
            found = self._findings(zero_filled)
        else:
            found = self._segmentations(zero_filled, sources, num_samples, batch_size)
        self.maybe_free_model_hooks()
        report(torch.zeros(len(empty)), empty.cpu())
        for name, value in found.items():
            nothing = torch.nan if name == "probabilities" else 0
            found[name] = value.masked_fill(empty.view(-1, *[1] * (value.ndim - 1)), nothing)
        return TaskOutput(masks=measurement.mask, coil_maps=measurement.coil_maps, **found)

    def _draw(
        self, y: Tensor, acceleration: float | None, sources: list[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """The sampler's masks within what was measured, and which slices hold no signal."""
        if tuple(y.shape[-2:]) != self.sampler.shape:
            raise InputError(
                f"the sampler is of the matrix {self.sampler.shape}, k-space of "
                f"{tuple(y.shape[-2:])}: give a mask, or train one of that size"
            )
        drawn = self.sampler(acceleration, len(y), sources).to(y.device)
        everything = torch.ones_like(drawn[:1, None])
        empty = find_empty_contrasts(y[:, None], everything)
        return keep_measured(y[:, None], drawn[:, None], empty)[:, 0], empty[:, 0]

    def _findings(self, zero_filled: Tensor) -> dict[str, Tensor]:
        network: Any = self.network
        return {"probabilities": torch.sigmoid(network(zero_filled))}

    def _segmentations(
        self,
        zero_filled: Tensor,
        sources: list[torch.Generator],
        num_samples: int,
        batch_size: int | None,
    ) -> dict[str, Tensor]:
        """Samples and what follows from them, slice by slice."""
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
                images, std = self.image_decoder(features, scale)
                check_finite(images, std)
                row |= {"images": images[0], "std": std[0]}
            elif (found := network.images(features, scale)) is not None:
                check_finite(found)
                row["images"] = found[0]
            check_finite(row["probabilities"][None])
            rows.append(row)
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def disagreement(samples: Tensor, num_classes: int) -> Tensor:
    """Share of the pairs of samples whose class differs, of each pixel, ``(ny, nx)`` float32.

    Args:
        samples: ``(samples, ny, nx)`` whole numbers, two or more.
        num_classes: the background included.
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
    """Load a sampler and the network that reads a task from its samples.

    Args:
        path: a folder or a hub repository with ``sampler/`` and ``network/``; for images
            ``image_decoder/``.
        dtype: of the networks: float32, bfloat16 or float16, or its name; what concerns the
            measurement is complex64 in any case.
        device: where to put them; the CPU by default.

    Raises:
        InputError: a missing, damaged or unsuitable part, each in a sentence of its own.
    """
    place = as_device(device)
    return TaskPipeline(**task_components(path, dtype=dtype)).to(place)
