"""Options of joint sampler and reconstruction training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctxrecon.masks import MASKS
from ctxrecon.masks.learned import SAMPLERS
from ctxrecon.reconstructors import MULTI_CONTRAST, RECONSTRUCTORS
from ctxrecon.training.config import (
    RATE,
    RESOLUTION,
    SHARE,
    Number,
    TrainingConfig,
    Whole,
    option,
)

NETWORKS = {**RECONSTRUCTORS, **MULTI_CONTRAST}
CONTRASTS = ("one", "multi_echo", "pd_pair")
"""Contrasts of a subject: one protocol of its anatomy; five echoes; or PD and PDFS."""
AIMS = ("reconstruction", "task", "both")
JOINT_LOSSES = ("l1", "mse", "ssim", "gaussian")


@dataclass(frozen=True, kw_only=True)
class MasksConfig(TrainingConfig):
    """Options of joint training, named as in the diffusers training scripts.

    Example:
        >>> from pathlib import Path
        >>> from ctxrecon.training.masks import MasksConfig
        >>> config = MasksConfig(
        ...     output_dir=Path("runs/joint"),
        ...     sampler="loupe",
        ...     network="unet",
        ...     bank=Path("runs/bank.npz"),
        ...     max_train_steps=2000,
        ... )
        >>> config.contrasts, config.aim
        ('one', 'reconstruction')
    """

    sampler: str | None = option(
        None,
        f"Sampler: {', '.join(SAMPLERS)}; with options as in loupe:lines=false; or the name of a "
        f"fixed mask: {', '.join(MASKS)}",
        on_resume="refused",
        in_card=True,
    )
    network: str | None = option(
        None,
        f"Network: {', '.join(NETWORKS)}; with options as in hru_net:width=16:blocks=2",
        on_resume="refused",
        in_card=True,
    )
    pretrained_model_name_or_path: str | None = option(
        None, "Trained pipeline to continue from, in place of --network", in_card=True
    )
    text_encoder: str | None = option(
        None, "Trained CLIP, whose prompt embedding modulates the features", in_card=True
    )
    predict_std: bool = option(
        False,
        "Also predict the error of each pixel with a separate small network; use "
        "--network unet:predict_std=joint to predict it with the network itself",
        on_resume="refused",
    )
    contrasts: str = option(
        "one", "Contrasts of each subject", choices=CONTRASTS, on_resume="refused", in_card=True
    )
    bank: Path | None = option(None, "Bank of anatomies from training/build_bank.py", in_card=True)
    anatomy: str | None = option(
        None, "Anatomy to select from the bank, such as brain (default: all)"
    )
    train_data_dir: Path | None = option(
        None, "Folder written by ctxrecon prepare, for a single contrast", in_card=True
    )
    resolution: int = option(128, "Matrix size of images and masks", check=RESOLUTION, in_card=True)
    acceleration: float | None = option(
        None,
        "Acceleration factor of a new sampler, averaged over the contrasts (default: 4)",
        check=Number(1),
        in_card=True,
    )
    center_fraction: float | None = option(
        None,
        "Fully sampled share of the lines of a new sampler (default: 0.32 / acceleration)",
        check=SHARE,
        in_card=True,
    )
    num_coils: int = option(8, "Number of coils", check=Whole(1, 256), in_card=True)
    magnitude_images: bool = option(
        False,
        "Simulate scans of the magnitude images, with --num_coils 1: k-space is then conjugate "
        "symmetric",
        on_resume="refused",
        in_card=True,
    )
    snr: float = option(
        100.0, "Ratio of the bright signal to the noise; 0 for no noise", check=Number(0, 1e9)
    )
    scans: int | None = option(
        None, "Number of scans (default: unlimited)", check=Whole(1), in_card=True
    )
    aim: str = option(
        "reconstruction",
        "Training aim: the images, the T2* map (task), or both",
        choices=AIMS,
        in_card=True,
    )
    loss: str = option("l1", "Loss of the images", choices=JOINT_LOSSES, in_card=True)
    task_weight: float = option(
        1.0, "Weight of the squared error of the map, for --aim both", check=Number(above=True)
    )
    sampler_learning_rate: float = option(
        1e-2, "Peak learning rate of the sampler", check=RATE, in_card=True
    )
    validation_scans: int = option(
        4, "Number of validation scans; 0 for none", check=Whole(0, 1024), on_resume="free"
    )
