"""Options of cross-modal training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctxrecon.masks import MASKS
from ctxrecon.reconstructors import CROSS_MODAL
from ctxrecon.reconstructors.cross_modal import GUIDANCE
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

ORDERS = ("both", "joint", "alternating", "registration")
_WEIGHT = Number(0, 1e9)


@dataclass(frozen=True, kw_only=True)
class CrossModalConfig(TrainingConfig):
    """Options of cross-modal training, named as in the diffusers training scripts.

    Example:
        >>> from pathlib import Path
        >>> from ctxrecon.training.cross_modal import CrossModalConfig
        >>> config = CrossModalConfig(
        ...     output_dir=Path("runs/cross"), bank=Path("runs/brains.npz"), max_train_steps=2000
        ... )
        >>> config.network, config.guidance
        ('paper', 'synthetic')
    """

    network: str = option(
        "paper",
        f"Network: {', '.join(CROSS_MODAL)}; with options as in small:cascades=4:alignment=false",
        on_resume="refused",
        in_card=True,
    )
    guidance: str = option(
        "synthetic",
        "Form of the reference that guides the reconstruction",
        choices=GUIDANCE,
        on_resume="refused",
        in_card=True,
    )
    aligner: str | None = option(
        None,
        "Trained pipeline whose aligner to start from, such as one of --order registration",
        in_card=True,
    )
    text_encoder: str | None = option(
        None, "Trained CLIP, whose prompt embedding modulates the features", in_card=True
    )
    bank: Path = option(text="Bank of brains from training/build_bank.py", in_card=True)
    resolution: list[int] = option(
        [128], "Matrix sizes to draw from", check=RESOLUTION, in_card=True
    )
    masks: list[str] = option(
        ["random1d"], "Sampling masks to draw from", choices=MASKS, in_card=True
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
    num_coils: list[int] = option(
        [1], "Numbers of coils to draw from", check=Whole(1, 256), in_card=True
    )
    magnitude: bool = option(
        False, "Use images without phase, like the paper's DICOM files", in_card=True
    )
    snr: float = option(
        100.0, "Ratio of the bright signal to the noise; 0 for no noise", check=Number(0, 1e9)
    )
    rotation: float = option(
        2.0,
        "Standard deviation of the rotation between scans, in degrees",
        check=Number(0, 180),
        in_card=True,
    )
    translation: float = option(
        3.0, "Maximum translation along each axis, in pixels", check=Number(0, 1e3), in_card=True
    )
    elastic: float = option(
        2.0,
        "Maximum elastic deformation along each axis, in pixels",
        check=Number(0, 1e3),
        in_card=True,
    )
    least_motion: float = option(
        1.0,
        "Smallest fraction of this motion; that of each subject is drawn between it and 1",
        check=SHARE,
        in_card=True,
    )
    scans: int | None = option(
        None, "Number of pairs of scans (default: unlimited)", check=Whole(1), in_card=True
    )
    order: str = option(
        "both",
        "Order of the steps: joint, alternating, or both as in the paper's Algorithm 1; or "
        "registration, which trains only the displacement, on the known motion of phantoms and "
        "without other losses",
        choices=ORDERS,
        in_card=True,
    )
    rounds: int = option(1, "Number I of alternations after each joint step", check=Whole(0, 64))
    reconstruction_weight: float = option(3000.0, "Weight α of the ℓ1 distance", check=_WEIGHT)
    alignment_weight: float = option(1.0, "Weight β of the critic of OT_M ∘ OT_S", check=_WEIGHT)
    synthesis_weight: float = option(1.0, "Weight δ of the critic of OT_M", check=_WEIGHT)
    smoothness_weight: float = option(
        1000.0, "Weight η of the smoothness of the displacement", check=_WEIGHT
    )
    paired_weight: float = option(
        0.0, "Weight of the ℓ1 distance of synthetic magnitudes (not in the paper)", check=_WEIGHT
    )
    motion_weight: float = option(
        0.0,
        "Weight of the error of the displacement in pixels (not in the paper)",
        check=_WEIGHT,
    )
    smooth_rounds: bool = option(
        False, "Use the smoothness in alternating steps as well (not in Algorithm 1)"
    )
    critic_width: int = option(
        64, "Number of features of the critics' first convolution", check=Whole(1, 1024)
    )
    critic_depth: int = option(5, "Number of resolutions of the critics", check=Whole(1, 8))
    critic_learning_rate: float | None = option(
        None, "Learning rate of the critics (default: --learning_rate)", check=RATE
    )
    learning_rate: float = option(1e-4, "Peak learning rate", check=RATE, in_card=True)
    adam_weight_decay: float = option(0.0, "AdamW weight decay", check=Number(0, 1e6))
    max_grad_norm: float = option(
        3000.0,
        "Gradient norm above which the gradients of each of the five parts are clipped",
        check=Number(above=True),
    )
    validation_scans: int = option(
        4, "Number of validation scans; 0 for none", check=Whole(0, 1024), on_resume="free"
    )

    def __post_init__(self) -> None:
        """Validate every value and their combination.

        Raises:
            UsageError: If a value has the wrong type or is out of range, gradients are accumulated,
                the losses train nothing, or critics are never trained.
        """
        super().__post_init__()
        if self.gradient_accumulation_steps > 1:
            raise UsageError(
                "expected --gradient_accumulation_steps 1, since the parts of the network are "
                f"trained in turn on each batch, got {self.gradient_accumulation_steps}: raise "
                "--train_batch_size"
            )
        if self.reconstruction_weight == 0:
            raise UsageError("expected --reconstruction_weight above 0, got 0")
        judged = max(self.alignment_weight, self.synthesis_weight) > 0
        if judged and self.rounds == 0 and self.order in ("both", "alternating"):
            raise UsageError(
                "expected --rounds of at least 1, since critics are trained in these, got 0: use "
                "--order joint, or --alignment_weight 0 --synthesis_weight 0"
            )
