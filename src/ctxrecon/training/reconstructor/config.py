"""The options of training a reconstructor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctxrecon.masks import MASKS
from ctxrecon.reconstructors import RECONSTRUCTORS
from ctxrecon.training.config import (
    RATE,
    RESOLUTION,
    SHARE,
    Number,
    TrainingConfig,
    UsageError,
    Whole,
    option,
)

LABELS = ("paired", "partial", "disjoint", "none")
LOSSES = ("l1", "mse", "ssim", "gaussian", "none")
ADVERSARIAL = ("wgan_gp", "lsgan", "entropic")
"""Gulrajani et al. 2017 (arXiv:1704.00028); Mao et al., ICCV 2017; Goodfellow et al. 2014."""


@dataclass(frozen=True, kw_only=True)
class ReconstructorConfig(TrainingConfig):
    """The options of training a reconstructor, named as in the diffusers training scripts."""

    network: str | None = option(
        None,
        f"{', '.join(RECONSTRUCTORS)}, with options: varnet:cascades=4:width=12",
        on_resume="refused",
        in_card=True,
    )
    pretrained_model_name_or_path: str | None = option(
        None, "network to go on with, in place of --network", in_card=True
    )
    text_encoder: str | None = option(
        None, "trained CLIP, whose embedding of the prompt modulates features", in_card=True
    )
    predict_std: bool = option(False, "the error of each pixel as well", on_resume="refused")
    bank: Path | None = option(None, "anatomies from training/build_bank.py", in_card=True)
    train_data_dir: Path | None = option(None, "from ctxrecon prepare", in_card=True)
    resolution: list[int] = option([128], "sizes to draw from", check=RESOLUTION, in_card=True)
    field_of_view: float = option(
        1.0, "smallest part of a slice that is shown", check=Number(0, 1, above=True)
    )
    masks: list[str] = option(["uniform1d"], choices=MASKS, in_card=True)
    sampler: Path | None = option(
        None,
        "folder of a trained task, whose sampler's masks are taken in place of --masks",
        on_resume="refused",
        in_card=True,
    )
    accelerations: list[float] = option([4.0], check=Number(1), in_card=True)
    center_fraction: float | None = option(
        None, "0.32 / acceleration of the lines by default", check=SHARE, in_card=True
    )
    fixed_masks: bool = option(False, "every scan keeps its mask")
    num_coils: list[int] = option(
        [8], "numbers of coils to draw from", check=Whole(1, 256), in_card=True
    )
    snr: float = option(100.0, "of the bright signal; 0 for no noise", check=Number(0, 1e9))
    magnitude_images: bool = option(
        False,
        "scan the magnitudes, with --num_coils 1: k-space is then conjugate symmetric",
        on_resume="refused",
        in_card=True,
    )
    scans: int | None = option(
        None, "M, how many scans there are; endless by default", check=Whole(1), in_card=True
    )
    labels: str = option("paired", choices=LABELS, on_resume="refused", in_card=True)
    labeled: int | None = option(
        None,
        "N, how many images partial or disjoint labels are",
        check=Whole(1),
        on_resume="refused",
        in_card=True,
    )
    magnitude_labels: bool = option(False, "partial or disjoint labels have no phase")
    loss: str = option("l1", choices=LOSSES, in_card=True)
    adversarial: str | None = option(None, choices=ADVERSARIAL, in_card=True)
    paired_share: float = option(0.99, "λ at the end; 1 − λ is the critic's", check=SHARE)
    paired_start: int = option(500, "steps with λ = 1", check=Whole(0))
    paired_end: int = option(1000, "step from which on λ is --paired_share", check=Whole(0))
    consistency: float = option(1.0, "γ of ‖A x − y‖₂ without paired loss", check=Number(0, 1e9))
    critic_width: int = option(4, "features of its first convolution", check=Whole(1, 1024))
    critic_steps: int = option(1, "its steps for one of the generator", check=Whole(1))
    critic_learning_rate: float | None = option(None, "that of the network by default", check=RATE)
    validation_scans: int = option(4, "0 for none", check=Whole(0, 1024), on_resume="free")

    def __post_init__(self) -> None:
        """Check every value, and the order of the steps.

        Raises:
            UsageError: a value of another type or out of its range.
        """
        super().__post_init__()
        if self.paired_end < self.paired_start:
            raise UsageError(
                f"expected --paired_end from {self.paired_start} on, where --paired_start is, got "
                f"{self.paired_end}"
            )
