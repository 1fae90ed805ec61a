"""Samplers trained with the findings of knees, and what attackers see in their measurements.

Magnitudes are scanned by one coil, so that k-space is conjugate symmetric, single samples are
chosen and none is always taken.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.training import slug, train_run

SNR = 50.0
_POINTS = "lines=false:center_fraction=0.0"


@dataclass(frozen=True)
class KneeEntry:
    """One sampler with its classifier.

    Attributes:
        title: in the tables.
        sampler: as ``--sampler`` takes it; ``{ratio}`` and ``{acceleration}`` stand for those of
            the study.
        entropy_weight: ``|β|``.
    """

    title: str
    sampler: str
    entropy_weight: float = 0.0


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
"""Networks that are trained to attack, by their names in the tables."""


def generator_entry(entropy_weight: float) -> KneeEntry:
    """InfoMRI's sampler with this ``|β|``."""
    return KneeEntry(f"InfoMRI, |β| = {entropy_weight:g}", GENERATOR, entropy_weight)


def _shared(args: argparse.Namespace) -> list[str]:
    """Options of both training scripts."""
    return [
        *("--bank", str(args.knees), "--resolution", str(args.knee_resolution)),
        *("--num_coils", "1", "--magnitude_images", "--snr", f"{SNR:g}"),
        *("--scans", str(args.knee_scans), "--validation_scans", "0", "--report_to", "none"),
    ]


def trained_task(entry: KneeEntry, args: argparse.Namespace, seed: int) -> Path | None:
    """Folder of the pipeline of an entry, trained if need be; ``None`` if it may not be."""
    acceleration = args.knee_acceleration
    folder = args.runs / f"knees_{slug(entry.title)}_x{acceleration:g}{_suffix(seed)}"
    sampler = entry.sampler.format(ratio=f"{1 / acceleration:g}", acceleration=f"{acceleration:g}")
    options = ["--task", "classification", "--sampler", sampler, *_shared(args)]
    options += ["--entropy_weight", f"{entry.entropy_weight:g}", "--seed", str(seed)]
    options += ["--train_batch_size", "16", "--sampler_learning_rate", "0.05"]
    done = train_run("train_task.py", options, folder, args.knee_steps, test_only=args.test_only)
    return folder / "pipeline" if done else None


def trained_attacker(task: Path, attacker: str, args: argparse.Namespace, seed: int) -> Path | None:
    """Folder of the network that one of :data:`ATTACKERS` becomes on a task's measurements."""
    folder = task.parent.with_name(f"{task.parent.name}_{slug(attacker)}")
    options = ["--network", ATTACKERS[attacker], "--loss", "mse", *_shared(args)]
    options += ["--sampler", str(task), "--accelerations", f"{args.knee_acceleration:g}"]
    options += ["--train_batch_size", "8", "--seed", str(seed)]
    done = train_run(
        "train_reconstructor.py", options, folder, args.attack_steps, test_only=args.test_only
    )
    return folder / "pipeline" if done else None


def _suffix(seed: int) -> str:
    return "" if seed == 0 else f"_seed{seed}"
