"""Options of joint sampler and task training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctxrecon.masks import MASKS
from ctxrecon.masks.learned import SAMPLERS
from ctxrecon.phantom import SEGMENTATIONS
from ctxrecon.training.config import (
    RATE,
    RESOLUTION,
    SHARE,
    Number,
    TrainingConfig,
    Whole,
    option,
)

TASKS = ("segmentation", "classification")
AIMS = ("both", "task", "reconstruction", "labels")
PARTS = ("sampler", "reconstruction")


@dataclass(frozen=True, kw_only=True)
class TasksConfig(TrainingConfig):
    """Options of task training, named as in the diffusers training scripts.

    Example:
        >>> from pathlib import Path
        >>> from ctxrecon.training.tasks import TasksConfig
        >>> config = TasksConfig(
        ...     output_dir=Path("runs/masses"), bank=Path("runs/masses.npz"), max_train_steps=2000
        ... )
        >>> config.task, config.target
        ('segmentation', 'mass')
    """

    task: str = option(
        "segmentation",
        "Segmentation of brains or knees, or classification of findings of knees",
        choices=TASKS,
        on_resume="refused",
        in_card=True,
    )
    target: str = option(
        "mass",
        "Structure to segment",
        choices=SEGMENTATIONS,
        on_resume="refused",
        in_card=True,
    )
    sampler: str | None = option(
        None,
        f"Sampler: {', '.join(SAMPLERS)}, with options; or the name of a fixed mask: "
        f"{', '.join(MASKS)} (default: pattern_generator)",
        on_resume="refused",
        in_card=True,
    )
    network: str | None = option(
        None,
        "Network: small or paper, with options as in small:width=8:layers=1 or "
        "paper:decoder_sees_measurement=true; two_unets or li_net, or two_unets_paper or "
        "li_net_paper with the published sizes (default: small)",
        on_resume="refused",
        in_card=True,
    )
    pretrained_model_name_or_path: str | None = option(
        None,
        "Pipeline of an earlier run, whose sampler and network are trained further unless new "
        "ones are specified",
        in_card=True,
    )
    aim: str = option(
        "both",
        "Training aim: task only; reconstruction, which two_unets segments; labels, whose latent "
        "li_net predicts; or both, task and reconstruction of a segmentation",
        choices=AIMS,
        on_resume="refused",
        in_card=True,
    )
    freeze: list[str] = option(
        [],
        "Parts to freeze",
        choices=PARTS,
        may_be_empty=True,
        on_resume="refused",
        in_card=True,
    )
    bank: Path = option(text="Bank of anatomies from training/build_bank.py", in_card=True)
    contrast: str | None = option(
        None,
        "Contrast of all scans, such as T1POST (default: as frequent as in real scans)",
        in_card=True,
    )
    resolution: int = option(128, "Matrix size of images and masks", check=RESOLUTION, in_card=True)
    field_of_view: float = option(
        1.0,
        "Part of the anatomy's width and height that is imaged, around the segmented structure",
        check=Number(0.1, 1),
        in_card=True,
    )
    acceleration: float | None = option(
        None,
        "Acceleration factor of a sampler without a range of ratios (default: 8)",
        check=Number(1),
        in_card=True,
    )
    center_fraction: float | None = option(
        None,
        "Share that every mask samples fully (default: that of the other masks)",
        check=SHARE,
        in_card=True,
    )
    num_coils: int = option(
        1,
        "Number of coils; 1 for the k-space of the image itself",
        check=Whole(1, 256),
        in_card=True,
    )
    snr: float = option(
        50.0, "Ratio of the bright signal to the noise; 0 for no noise", check=Number(0, 1e9)
    )
    magnitude_images: bool = option(
        False,
        "Simulate scans of the magnitude images, with --num_coils 1: k-space is then conjugate "
        "symmetric",
        on_resume="refused",
        in_card=True,
    )
    scans: int | None = option(
        None, "Number of scans (default: unlimited)", check=Whole(1), in_card=True
    )
    raters: int = option(
        6, "Number of raters who segmented every slice", check=Whole(1, 1024), in_card=True
    )
    rater_spread: float = option(
        1.0,
        "Spread of the raters' boundaries relative to the usual one",
        check=Number(0, 100),
        in_card=True,
    )
    latent_weight: float = option(
        1.0,
        "Weight of the divergence of the latents; 1 corresponds to the likelihood bound",
        check=Number(0),
        in_card=True,
    )
    latent_warmup_steps: int = option(
        500,
        "Steps over which the weight of the divergence rises, so that latents come into use "
        "before their cost is high",
        check=Whole(0, 10**9),
        in_card=True,
    )
    reconstruction_weight: float | None = option(
        None,
        "Weight of the image in the loss of a segmentation (default: 0.1, and 1 for two_unets)",
        check=Number(0),
    )
    entropy_weight: float = option(
        0.0,
        "Weight of the entropy per sample, which reduces other information in the measurement",
        check=Number(0),
        in_card=True,
    )
    sampler_learning_rate: float = option(
        1e-2, "Peak learning rate of the sampler", check=RATE, in_card=True
    )
    validation_scans: int = option(
        16, "Number of validation scans; 0 for none", check=Whole(0, 4096), on_resume="free"
    )
