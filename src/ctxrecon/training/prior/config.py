"""Options of prior training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctxrecon.training.config import (
    RATE,
    RESOLUTION,
    SHARE,
    Number,
    TrainingConfig,
    Whole,
    option,
)

PREDICTION_TYPES = ("epsilon", "v_prediction")
LOSS_WEIGHTINGS = ("plain", "balanced", "min_snr")
TIMESTEP_DENSITIES = ("uniform", "quadratic")


@dataclass(frozen=True, kw_only=True)
class PriorConfig(TrainingConfig):
    """Options of prior training, named as in the diffusers training scripts.

    Example:
        >>> from pathlib import Path
        >>> from ctxrecon.training.prior import PriorConfig
        >>> config = PriorConfig(
        ...     output_dir=Path("runs/prior"), bank=Path("runs/bank.npz"), max_train_steps=20000
        ... )
        >>> config.resolution, config.prediction_type
        ([128], 'v_prediction')
    """

    pretrained_model_name_or_path: str | None = option(
        None, "Prior to fine-tune (default: train a new one)", in_card=True
    )
    subfolder: str | None = option(
        None, "Subfolder of the prior's U-Net, such as fastmri in DHCAI/ContextMRI"
    )
    scheduler: str | None = option(None, "Scheduler folder, if the checkpoint has none")
    tokenizer: str | None = option(None, "Tokenizer folder or hub name, if the checkpoint has none")
    text_encoder: str | None = option(
        None, "Trained CLIP, such as openai/clip-vit-large-patch14", in_card=True
    )
    train_text_encoder: bool = option(
        False, "Train the text encoder jointly instead of freezing it", on_resume="refused"
    )
    unet_config: Path | None = option(
        None, "JSON configuration of a new UNet2DConditionModel (default: a small one)"
    )
    prediction_type: str = option(
        "v_prediction",
        "Target that the network predicts",
        choices=PREDICTION_TYPES,
        on_resume="refused",
    )
    bank: Path | None = option(None, "Bank of anatomies from training/build_bank.py", in_card=True)
    train_data_dir: list[Path] = option(
        [], "Folders written by ctxrecon prepare", may_be_empty=True, in_card=True
    )
    data_weights: list[float] | None = option(
        None,
        "Sampling weights of the bank and of each folder, in this order",
        check=Number(above=True),
        may_be_empty=True,
    )
    resolution: list[int] = option(
        [128], "Matrix sizes to draw from", check=RESOLUTION, in_card=True
    )
    field_of_view: float = option(
        1.0, "Smallest part of a slice that is shown", check=Number(0, 1, above=True)
    )
    native_share: float = option(
        0.0, "Share of steps with squares at the data's own pixel size, not resampled", check=SHARE
    )
    image_noise: float = option(
        0.025,
        "Maximum noise in phantom images, relative to their brightness",
        check=Number(0, 1),
    )
    varied_times: float = option(
        0.0, "Share of phantom slices with random TR, TE and TI", check=SHARE
    )
    random_contrast: float = option(
        0.0,
        "Share of slices with random contrast, whose prompt contains the anatomy only",
        check=SHARE,
    )
    loss_weighting: str = option(
        "plain", "Weighting of the noise levels in the loss", choices=LOSS_WEIGHTINGS
    )
    snr_gamma: float = option(5.0, "Gamma of --loss_weighting min_snr", check=Number(above=True))
    timestep_density: str = option(
        "uniform", "Density of the training timesteps", choices=TIMESTEP_DENSITIES
    )
    parameter_dropout: float = option(
        0.5, "Probability that a prompt has no MR parameters", check=SHARE
    )
    prompt_dropout: float = option(0.1, "Probability that a prompt is empty", check=SHARE)
    field_dropout: float = option(
        0.0, "Probability that each single field is dropped from a prompt", check=SHARE
    )
    demographic_dropout: float = option(
        0.5, "Probability that a prompt has no age and sex", check=SHARE
    )
    gradient_checkpointing: bool = option(False, "Use less memory and more time")
    validation_scans: int = option(
        4, "Number of validation scans; 0 for none", check=Whole(0, 1024), on_resume="free"
    )
    learning_rate: float = option(4e-4, "Peak learning rate", check=RATE, in_card=True)
