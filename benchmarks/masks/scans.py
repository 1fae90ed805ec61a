"""Test subjects of learned samplers, and scores of samplers with their networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.held_out import LABEL_VOLUME, SNR, held_out_anatomy, scan_seed
from ctxrecon.coils import estimate_coil_maps
from ctxrecon.metrics import image_metrics, redundancy_ratio
from ctxrecon.phantom import ContrastScan, contrast_scan, load_label_volume
from ctxrecon.pipelines import JointOutput, JointPipeline, load_prior
from ctxrecon.training.masks import (
    draw_protocols,
    joint_scores,
    magnitude_scan,
    sample_and_reconstruct,
)

_KINDS = {"one": ("knee", "brain"), "multi_echo": ("brain",), "pd_pair": ("knee",)}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores of one model at one acceleration.

    Attributes:
        title: Title of its entry.
        acceleration: Acceleration over all contrasts.
        scores: Values of every metric, each of shape ``(scans,)``.
        model: Further properties of the model.
        seed: Random seed of its training.
    """

    title: str
    acceleration: float
    scores: dict[str, np.ndarray]
    model: dict[str, Any]
    seed: int = 0

    @classmethod
    def of(cls, row: dict[str, Any]) -> Scored:
        """Read the scores written by :meth:`record`."""
        known = ("title", "acceleration", "scores", "seed")
        return cls(
            title=row["title"],
            acceleration=row["acceleration"],
            scores={name: np.array(values) for name, values in row["scores"].items()},
            model={name: value for name, value in row.items() if name not in known},
            seed=row.get("seed", 0),
        )

    def record(self) -> dict[str, Any]:
        """Return every scan's scores in JSON types."""
        scores = {name: values.tolist() for name, values in self.scores.items()}
        return {
            "title": self.title,
            "acceleration": self.acceleration,
            "seed": self.seed,
            "scores": scores,
            **self.model,
        }


@dataclass(frozen=True, kw_only=True)
class Found(Scored):
    """Scores and pictures of one model at one acceleration.

    Attributes:
        masks: Masks of the first scan, ``(contrasts, ny, nx)``, bool.
        images: Images of the last scan, ``(contrasts, ny, nx)``, complex64.
        maps: T2* map of the last scan, ``(ny, nx)``, or ``None``.
    """

    masks: Tensor
    images: Tensor
    maps: Tensor | None


def held_out_contrasts(
    count: int,
    resolution: int,
    contrasts: str,
    label_volumes: Sequence[Path],
    seed: int,
    *,
    num_coils: int,
    magnitude: bool = False,
) -> list[ContrastScan]:
    """Draw fully sampled noisy scans of one slice in several contrasts.

    Args:
        count: Number of scans: procedural anatomies and, except for pairs of PD and PDFS, slices of
            label volumes in turn.
        resolution: Matrix size.
        contrasts: Value of ``--contrasts`` of ``training/train_sampler.py``.
        label_volumes: Label volumes of people outside the bank.
        seed: Random seed of the subjects.
        num_coils: Number of simulated coils.
        magnitude: Scan magnitude images by one coil without a phase.
    """
    kinds = list(_KINDS[contrasts])
    if label_volumes and contrasts != "pd_pair":
        kinds.append(LABEL_VOLUME)
    volumes = [load_label_volume(path) for path in label_volumes]
    scans = []
    for number in tqdm(range(count), desc="drawing scans", unit="scan"):
        kind = kinds[number % len(kinds)]
        volume = volumes[number // len(kinds) % len(volumes)] if kind == LABEL_VOLUME else None
        own_seed = scan_seed(seed, number)
        generator = torch.Generator().manual_seed(own_seed)
        anatomy = held_out_anatomy(kind, own_seed, resolution, generator, volume)
        scans.append(
            contrast_scan(
                anatomy,
                draw_protocols(contrasts, anatomy.name, generator),
                shape=(resolution, resolution),
                num_coils=num_coils,
                snr=SNR,
                generator=generator,
            )
        )
    return [magnitude_scan(scan) for scan in scans] if magnitude else scans


def score(
    title: str,
    pipe: JointPipeline,
    scans: Sequence[ContrastScan],
    accelerations: Sequence[float],
    seed: int,
    *,
    stages: bool = False,
) -> list[Found]:
    """Score a model at each acceleration, with a separate mask for every scan.

    With ``stages``, also score each stage of the masks after the center, at the acceleration that
    the stage has reached.
    """
    pipe.set_progress_bar_config(disable=True)
    found = []
    for acceleration in accelerations:
        of_scans = []
        for number, scan in enumerate(tqdm(scans, desc=title, unit="scan")):
            own = scan_seed(seed, number)
            output = sample_and_reconstruct(pipe, scan, own, acceleration, stages=stages)
            of_scans.append([*(output.stages or [])[1:], output])
        for outputs in zip(*of_scans, strict=True):
            reached = acceleration
            if outputs[0] is not of_scans[0][-1]:
                reached = float(1 / outputs[0].masks.double().mean())
            found.append(_found(title, pipe, scans, outputs, reached))
    return found


def _found(
    title: str,
    pipe: JointPipeline,
    scans: Sequence[ContrastScan],
    outputs: Sequence[JointOutput],
    acceleration: float,
) -> Found:
    """Score the reconstructions of a model."""
    rows, pairs = [], []
    for output, scan in zip(outputs, scans, strict=True):
        rows.append(joint_scores(pipe, output, scan))
        if output.expected_error is not None:
            truth = seen_by(output.coil_maps, scan)
            pairs.append(expected_and_real(output.expected_error[0], output.images[0], truth))
    masks = torch.stack([output.masks[0] for output in outputs])
    parameters = sum(value.numel() for value in pipe.reconstructor.parameters())
    model: dict[str, Any] = {"parameters": parameters, **_of_masks(masks)}
    if pairs:
        model["uncertainty"] = uncertainty(pairs)
    last = outputs[-1]
    return Found(
        title=title,
        acceleration=acceleration,
        scores={name: np.array([row[name] for row in rows]) for name in rows[0]},
        model=model,
        masks=masks[0][:, 0],
        images=last.images[0],
        maps=None if last.t2star is None else last.t2star[0],
    )


def score_prior(
    title: str, pipe: JointPipeline, scans: Sequence[ContrastScan], acceleration: float, seed: int
) -> Found:
    """Score the shipped diffusion prior under the masks of a model trained with a network."""
    prior = load_prior()
    prior.set_progress_bar_config(disable=True)
    rows, masks = [], []
    for number, scan in enumerate(tqdm(scans, desc="diffusion prior", unit="scan")):
        own_seed = scan_seed(seed, number)
        generator = torch.Generator().manual_seed(own_seed)
        drawn = pipe.sampler(acceleration, 1, generator)
        center = pipe.sampler.as_mask(pipe.sampler.budget(acceleration).center)[None, None]
        output = prior(
            scan.kspace[0] * drawn,
            drawn,
            scan.metadata[0].to_prompt(),
            coil_maps=estimate_coil_maps(scan.kspace[0] * center, center, num_maps=1),
            generator=torch.Generator().manual_seed(own_seed),
        )
        scores = image_metrics(output.images, scan.images[0])
        rows.append({name: float(scores[name].mean()) for name in ("psnr", "ssim")})
        masks.append(drawn)
    every = torch.stack(masks)
    model = {
        "parameters": sum(value.numel() for value in prior.unet.parameters()),
        **_of_masks(every),
    }
    return Found(
        title=f"diffusion prior, {title.split(', ')[-1]}",
        acceleration=acceleration,
        scores={name: np.array([row[name] for row in rows]) for name in rows[0]},
        model=model,
        masks=masks[0][:, 0],
        images=output.images,
        maps=None,
    )


def _of_masks(every: Tensor) -> dict[str, Any]:
    """Return properties of masks ``(scans, contrasts, 1, ny, nx)``."""
    return {
        "redundancy": redundancy_ratio(every).mean(dim=0).tolist(),
        "accelerations": (1 / every.float().mean(dim=(0, 2, 3, 4))).tolist(),
        "lines": every.float().mean(dim=(0, 2, 3)).tolist(),
    }


def seen_by(coil_maps: Tensor | None, scan: ContrastScan) -> Tensor:
    """Return the noiseless images as combined by estimated maps, ``Σ_c conj(Ŝ_c) S_c x``.

    Args:
        coil_maps: Estimated maps ``Ŝ``, or ``None`` for a single coil.
        scan: Scan with true maps ``S`` and images ``x``.

    Returns:
        Images of shape ``(contrasts, ny, nx)``, complex64.
    """
    estimated = torch.ones_like(scan.coil_maps) if coil_maps is None else coil_maps.cpu()
    return (estimated.conj() * scan.coil_maps).sum(dim=1) * scan.images[0]


def expected_and_real(std: Tensor, images: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return predicted variance and squared error of every pixel inside the coils' support."""
    inside = images != 0
    return std[inside].square(), (images - truth)[inside].abs().square()


def uncertainty(pairs: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Compare predicted variance with squared error.

    Returns:
        Pearson's correlation over the pixels of a scan, averaged over scans, of the values and of
        their logarithms; mean variance and mean squared error in ten groups of pixels of rising
        variance, and their total ratio, which is 1 for a calibrated prediction.
    """
    linear = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in pairs]
    logarithmic = [
        torch.corrcoef(torch.stack([one.clamp_min(1e-12).log() for one in pair]))[0, 1]
        for pair in pairs
    ]
    variance, error = (torch.cat([pair[k] for pair in pairs]) for k in (0, 1))
    groups = variance.argsort().tensor_split(10)
    return {
        "correlation": float(torch.stack(linear).mean()),
        "correlation_of_logarithms": float(torch.stack(logarithmic).mean()),
        "variance": [float(variance[group].mean()) for group in groups],
        "squared_error": [float(error[group].mean()) for group in groups],
        "total": float(error.mean() / variance.mean()),
    }
