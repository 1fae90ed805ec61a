"""Options of reconstructor training."""

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
"""Adversarial losses: Gulrajani et al. 2017 (arXiv:1704.00028), Mao et al., ICCV 2017, and
Goodfellow et al. 2014."""


@dataclass(frozen=True, kw_only=True)
class ReconstructorConfig(TrainingConfig):
    """Options of reconstructor training, named as in the diffusers training scripts.

    Example:
        >>> from pathlib import Path
        >>> from ctxrecon.training.reconstructor import ReconstructorConfig
        >>> config = ReconstructorConfig(
        ...     output_dir=Path("runs/varnet"),
        ...     network="varnet:cascades=4",
        ...     bank=Path("runs/bank.npz"),
        ...     max_train_steps=2000,
        ... )
        >>> config.masks, config.accelerations
        (['uniform1d'], [4.0])
    """

    network: str | None = option(
        None,
        f"Network: {', '.join(RECONSTRUCTORS)}; with options as in varnet:cascades=4:width=12",
        on_resume="refused",
        in_card=True,
    )
    pretrained_model_name_or_path: str | None = option(
        None, "Trained network to continue from, in place of --network", in_card=True
    )
    text_encoder: str | None = option(
        None, "Trained CLIP, whose prompt embedding modulates the features", in_card=True
    )
    predict_std: bool = option(False, "Also predict the error of each pixel", on_resume="refused")
    bank: Path | None = option(None, "Bank of anatomies from training/build_bank.py", in_card=True)
    train_data_dir: Path | None = option(None, "Folder written by ctxrecon prepare", in_card=True)
    resolution: list[int] = option(
        [128], "Matrix sizes to draw from", check=RESOLUTION, in_card=True
    )
    field_of_view: float = option(
        1.0, "Smallest part of a slice that is shown", check=Number(0, 1, above=True)
    )
    masks: list[str] = option(
        ["uniform1d"], "Sampling masks to draw from", choices=MASKS, in_card=True
    )
    sampler: Path | None = option(
        None,
        "Folder of a trained task, whose sampler replaces --masks",
        on_resume="refused",
        in_card=True,
    )
    accelerations: list[float] = option(
        [4.0], "Acceleration factors to draw from", check=Number(1), in_card=True
    )
    center_fraction: float | None = option(
        None,
        "Fully sampled share of the lines (default: 0.32 / acceleration)",
        check=SHARE,
        in_card=True,
    )
    fixed_masks: bool = option(False, "Use the same mask for a scan every time")
    num_coils: list[int] = option(
        [8], "Numbers of coils to draw from", check=Whole(1, 256), in_card=True
    )
    snr: float = option(
        100.0, "Ratio of the bright signal to the noise; 0 for no noise", check=Number(0, 1e9)
    )
    magnitude_images: bool = option(
        False,
        "Simulate scans of the magnitude images, with --num_coils 1: k-space is then conjugate "
        "symmetric",
        on_resume="refused",
        in_card=True,
    )
    scans: int | None = option(
        None, "Number M of scans (default: unlimited)", check=Whole(1), in_card=True
    )
    labels: str = option(
        "paired",
        "Fully sampled images available in training",
        choices=LABELS,
        on_resume="refused",
        in_card=True,
    )
    labeled: int | None = option(
        None,
        "Number N of images for partial or disjoint labels",
        check=Whole(1),
        on_resume="refused",
        in_card=True,
    )
    magnitude_labels: bool = option(False, "Use partial or disjoint labels without phase")
    loss: str = option("l1", "Paired loss", choices=LOSSES, in_card=True)
    adversarial: str | None = option(None, "Adversarial loss", choices=ADVERSARIAL, in_card=True)
    paired_share: float = option(
        0.99, "Final weight λ of the paired loss; the adversarial loss has 1 − λ", check=SHARE
    )
    paired_start: int = option(500, "Number of initial steps with λ = 1", check=Whole(0))
    paired_end: int = option(1000, "Step at which λ reaches --paired_share", check=Whole(0))
    consistency: float = option(
        1.0, "Weight γ of ‖A x − y‖₂ without a paired loss", check=Number(0, 1e9)
    )
    critic_width: int = option(
        4, "Number of features of the critic's first convolution", check=Whole(1, 1024)
    )
    critic_steps: int = option(1, "Critic steps per generator step", check=Whole(1))
    critic_learning_rate: float | None = option(
        None, "Learning rate of the critic (default: --learning_rate)", check=RATE
    )
    validation_scans: int = option(
        4, "Number of validation scans; 0 for none", check=Whole(0, 1024), on_resume="free"
    )

    def __post_init__(self) -> None:
        """Validate every value and the order of the steps.

        Raises:
            UsageError: If a value has the wrong type or is out of range.
        """
        super().__post_init__()
        if self.paired_end < self.paired_start:
            raise UsageError(
                f"expected --paired_end of at least --paired_start, {self.paired_start}, got "
                f"{self.paired_end}"
            )
