"""The options of training with references."""

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
    """The options of training with references, named as in the diffusers training scripts."""

    network: str = option(
        "paper",
        f"{', '.join(CROSS_MODAL)}, with options: small:cascades=4:alignment=false",
        on_resume="refused",
        in_card=True,
    )
    guidance: str = option(
        "synthetic",
        "what the reconstruction sees of the reference",
        choices=GUIDANCE,
        on_resume="refused",
        in_card=True,
    )
    aligner: str | None = option(
        None,
        "trained pipeline whose aligner to start from, such as one of --order registration",
        in_card=True,
    )
    text_encoder: str | None = option(
        None, "trained CLIP, whose embedding of the prompt modulates features", in_card=True
    )
    bank: Path = option(text="brains from training/build_bank.py", in_card=True)
    resolution: list[int] = option([128], "sizes to draw from", check=RESOLUTION, in_card=True)
    masks: list[str] = option(["random1d"], choices=MASKS, in_card=True)
    accelerations: list[float] = option([4.0], check=Number(1), in_card=True)
    center_fraction: float | None = option(
        None, "0.32 / acceleration of the lines by default", check=SHARE, in_card=True
    )
    num_coils: list[int] = option(
        [1], "numbers of coils to draw from", check=Whole(1, 256), in_card=True
    )
    magnitude: bool = option(
        False, "images without phase, as those of the paper's DICOM files", in_card=True
    )
    snr: float = option(100.0, "of the bright signal; 0 for no noise", check=Number(0, 1e9))
    rotation: float = option(
        2.0, "standard deviation in degrees", check=Number(0, 180), in_card=True
    )
    translation: float = option(
        3.0, "largest shift along each axis, in pixels", check=Number(0, 1e3), in_card=True
    )
    elastic: float = option(
        2.0, "largest bending along each axis, in pixels", check=Number(0, 1e3), in_card=True
    )
    scans: int | None = option(
        None, "how many pairs there are; endless by default", check=Whole(1), in_card=True
    )
    order: str = option(
        "both",
        "joint steps, alternating ones, or both as in the paper's Algorithm 1; registration trains "
        "the displacement alone, on the known motion of phantoms",
        choices=ORDERS,
        in_card=True,
    )
    rounds: int = option(1, "I, alternations after each joint step", check=Whole(0, 64))
    reconstruction_weight: float = option(3000.0, "α of the ℓ1 distance", check=_WEIGHT)
    alignment_weight: float = option(1.0, "β of the critic of OT_M ∘ OT_S", check=_WEIGHT)
    synthesis_weight: float = option(1.0, "δ of the critic of OT_M", check=_WEIGHT)
    smoothness_weight: float = option(1000.0, "η of the displacement", check=_WEIGHT)
    paired_weight: float = option(
        0.0, "of the ℓ1 distance of synthetic magnitudes, which the paper has not", check=_WEIGHT
    )
    motion_weight: float = option(
        0.0,
        "of the displacement's distance in pixels from the true one, which the paper has not",
        check=_WEIGHT,
    )
    smooth_rounds: bool = option(False, "η in the alternations too, which Algorithm 1 has not")
    critic_width: int = option(64, "features of its first convolution", check=Whole(1, 1024))
    critic_depth: int = option(5, "sizes of its features", check=Whole(1, 8))
    critic_learning_rate: float | None = option(None, "that of the network by default", check=RATE)
    learning_rate: float = option(1e-4, check=RATE, in_card=True)
    adam_weight_decay: float = option(0.0, check=Number(0, 1e6))
    max_grad_norm: float = option(
        3000.0, "of each of the five parts by itself", check=Number(above=True)
    )
    validation_scans: int = option(4, "0 for none", check=Whole(0, 1024), on_resume="free")

    def __post_init__(self) -> None:
        """Check every value, and that there is something to train for.

        Raises:
            UsageError: a value of another type or out of its range, micro-batches, losses that
                train nothing, or critics that are never trained.
        """
        super().__post_init__()
        if self.gradient_accumulation_steps > 1:
            raise UsageError(
                "expected --gradient_accumulation_steps 1, since the parts of the network take "
                f"turns on each batch, got {self.gradient_accumulation_steps}: raise "
                "--train_batch_size"
            )
        if self.reconstruction_weight == 0:
            raise UsageError("expected --reconstruction_weight above 0, got 0")
        judged = max(self.alignment_weight, self.synthesis_weight) > 0
        if judged and self.rounds == 0 and self.order in ("both", "alternating"):
            raise UsageError(
                "expected --rounds of 1 or more, since critics are trained in these, got 0: give "
                "--order joint, or --alignment_weight 0 --synthesis_weight 0"
            )
