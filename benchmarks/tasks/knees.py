"""Samplers trained to classify findings of knees, and attacks on their measurements.

Magnitude images are scanned by one coil, so that k-space is conjugate symmetric. Samplers choose
single points without a fully sampled center.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.held_out import held_out_anatomy, scan_seed
from benchmarks.common.training import slug, train_run
from ctxrecon.fourier import ifft2c
from ctxrecon.operators import CartesianSense
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import ContextMRIPipeline, ReconstructionPipeline, TaskPipeline
from ctxrecon.tasks import finding_labels
from ctxrecon.training.reconstructor.validation import magnitude_scan

SNR = 50.0
_AT_ONCE = 16
_POINTS = "lines=false:center_fraction=0.0"


@dataclass(frozen=True)
class KneeEntry:
    """One sampler with its classifier.

    Attributes:
        title: Name in the tables.
        sampler: Value of ``--sampler``; ``{ratio}`` and ``{acceleration}`` are replaced by those of
            the study.
        entropy_weight: Weight ``|β|`` of the entropy.
    """

    title: str
    sampler: str
    entropy_weight: float = 0.0

    @property
    def folder(self) -> str:
        """Title as part of a folder name."""
        return slug(self.title.replace("β", "beta"))


GENERATOR = f"pattern_generator:ratios=[{{ratio}},{{ratio}}]:{_POINTS}:embedding=1:width=16"
UNIFORM = KneeEntry(
    "uniform random", "fixed:mask=uniform2d:acceleration={acceleration}:center_fraction=0.0"
)
OTHERS = (
    UNIFORM,
    KneeEntry("variable density", "fixed:mask=variable_density2d:acceleration={acceleration}"),
    KneeEntry("LOUPE", f"loupe:acceleration={{acceleration}}:{_POINTS}"),
)
ATTACKERS = {"U-Net": "unet:width=16:depth=3", "unrolled": "unrolled:width=16:iterations=3"}
"""Trained attackers by their names in the tables."""


def generator_entry(entropy_weight: float) -> KneeEntry:
    """Return InfoMRI's sampler with a weight ``|β|``."""
    return KneeEntry(f"InfoMRI, β = {-entropy_weight or 0:g}", GENERATOR, entropy_weight)


def _shared(args: argparse.Namespace) -> list[str]:
    """Return the options shared by both training scripts."""
    return [
        *("--bank", str(args.knees), "--resolution", str(args.knee_resolution)),
        *("--num_coils", "1", "--magnitude_images", "--snr", f"{SNR:g}"),
        *("--scans", str(args.knee_scans), "--validation_scans", "0", "--report_to", "none"),
    ]


def trained_task(entry: KneeEntry, args: argparse.Namespace) -> Path | None:
    """Train an entry if necessary; return its folder, or ``None`` if training is not allowed."""
    acceleration = args.knee_acceleration
    folder = args.runs / f"knees_{entry.folder}_x{acceleration:g}"
    sampler = entry.sampler.format(ratio=f"{1 / acceleration:g}", acceleration=f"{acceleration:g}")
    options = ["--task", "classification", "--sampler", sampler, *_shared(args)]
    options += ["--entropy_weight", f"{entry.entropy_weight:g}", "--seed", "0"]
    options += ["--train_batch_size", "16", "--sampler_learning_rate", "0.05"]
    done = train_run("train_task.py", options, folder, args.knee_steps, test_only=args.test_only)
    return folder / "pipeline" if done else None


def trained_attacker(task: Path, attacker: str, args: argparse.Namespace) -> Path | None:
    """Train one of :data:`ATTACKERS` on a task's measurements; return its folder or ``None``."""
    folder = task.parent.with_name(f"{task.parent.name}_{slug(attacker)}")
    options = ["--network", ATTACKERS[attacker], "--loss", "mse", *_shared(args)]
    options += ["--sampler", str(task), "--accelerations", f"{args.knee_acceleration:g}"]
    options += ["--train_batch_size", "8", "--seed", "0"]
    done = train_run(
        "train_reconstructor.py", options, folder, args.attack_steps, test_only=args.test_only
    )
    return folder / "pipeline" if done else None


@dataclass(frozen=True)
class Knees:
    """Slices of knees of different people, scanned as in training.

    Attributes:
        images: Noiseless magnitudes of shape ``(count, n, n)``, complex64.
        kspace: Fully sampled noisy k-space of shape ``(count, 1, n, n)``, complex64.
        findings: Presence of the findings, ``(count, findings)``, bool.
        prompts: Prompts of their metadata, for the prior.
    """

    images: Tensor
    kspace: Tensor
    findings: Tensor
    prompts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


def draw_knees(count: int, resolution: int, seed: int) -> Knees:
    """Draw knees of people outside the banks; a larger count extends a smaller one.

    Args:
        count: Number of knees.
        resolution: Matrix size n.
        seed: Random seed of the people.
    """
    scans = []
    for number in tqdm(range(count), desc="drawing knees", unit="scan"):
        own = scan_seed(seed, number)
        generator = torch.Generator().manual_seed(own)
        anatomy = held_out_anatomy("knee", own, resolution, generator)
        drawn = phantom_scan(
            anatomy, shape=(resolution, resolution), num_coils=1, snr=None, generator=generator
        )
        scans.append(magnitude_scan(drawn, SNR, own))
    metadata = [scan.metadata[0] for scan in scans]
    return Knees(
        torch.cat([scan.target for scan in scans if scan.target is not None]),
        torch.cat([scan.kspace for scan in scans]),
        torch.stack([finding_labels(one.pathologies) for one in metadata]),
        tuple(one.to_prompt() for one in metadata),
    )


def masks_of(pipe: TaskPipeline, acceleration: float, count: int, seed: int) -> Tensor:
    """Draw a mask for each of ``count`` knees, ``(count, 1, n, n)``, bool."""
    sampler: Any = pipe.sampler
    return sampler(acceleration, count, torch.Generator().manual_seed(seed))


@torch.no_grad()
def read_findings(pipe: TaskPipeline, knees: Knees, masks: Tensor) -> Tensor:
    """Return the probability of each finding, ``(count, findings)``, float32."""
    network: Any = pipe.network
    zero_filled = ifft2c(knees.kspace * masks)[:, 0]
    return torch.cat([torch.sigmoid(network(part)) for part in zero_filled.split(_AT_ONCE)])


@torch.no_grad()
def attack_by_network(pipe: ReconstructionPipeline, knees: Knees, masks: Tensor) -> Tensor:
    """Reconstruct all knees by a trained attacker, ``(count, n, n)``, complex64."""
    images = []
    for kspace, mask in zip(knees.kspace.split(_AT_ONCE), masks.split(_AT_ONCE), strict=True):
        operator = CartesianSense(mask, torch.ones_like(kspace))
        images.append(pipe.reconstructor(operator, kspace * mask).images)
    return torch.cat(images)


def attack_by_prior(
    prior: ContextMRIPipeline, knees: Knees, masks: Tensor, count: int, seed: int
) -> Tensor:
    """Reconstruct the first knees by a diffusion prior with its default solver."""
    images = []
    for number in range(min(count, len(knees))):
        mask = masks[number][None]
        output = prior(
            knees.kspace[number][None] * mask,
            mask,
            knees.prompts[number],
            generator=torch.Generator().manual_seed(scan_seed(seed, number)),
        )
        images.append(output.images)
    return torch.cat(images)
