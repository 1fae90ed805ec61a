"""The options of training the prior."""

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
    """The options of training the prior, named as in the diffusers training scripts."""

    pretrained_model_name_or_path: str | None = option(
        None, "prior to fine-tune; a new one by default", in_card=True
    )
    subfolder: str | None = option(None, "of its U-Net, such as fastmri in DHCAI/ContextMRI")
    scheduler: str | None = option(None, "folder, where the checkpoint has none")
    tokenizer: str | None = option(None, "folder or hub name, where the checkpoint has none")
    text_encoder: str | None = option(
        None, "trained CLIP, such as openai/clip-vit-large-patch14", in_card=True
    )
    train_text_encoder: bool = option(False, "jointly, not frozen", on_resume="refused")
    unet_config: Path | None = option(None, "JSON of a new UNet2DConditionModel; small by default")
    prediction_type: str = option("v_prediction", choices=PREDICTION_TYPES, on_resume="refused")
    bank: Path | None = option(None, "anatomies from training/build_bank.py", in_card=True)
    train_data_dir: list[Path] = option(
        [], "from ctxrecon prepare", may_be_empty=True, in_card=True
    )
    data_weights: list[float] | None = option(
        None,
        "share of the bank, then of each folder",
        check=Number(above=True),
        may_be_empty=True,
    )
    resolution: list[int] = option([128], "sizes to draw from", check=RESOLUTION, in_card=True)
    field_of_view: float = option(
        1.0, "smallest part of a slice that is shown", check=Number(0, 1, above=True)
    )
    native_share: float = option(
        0.0, "steps that show squares of the data's own pixels, not sampled anew", check=SHARE
    )
    image_noise: float = option(
        0.025, "largest noise left in phantom images, of their brightness", check=Number(0, 1)
    )
    varied_times: float = option(
        0.0, "phantom slices with TR, TE and TI of no protocol", check=SHARE
    )
    random_contrast: float = option(
        0.0, "slices of random contrast, whose prompt tells the anatomy alone", check=SHARE
    )
    loss_weighting: str = option("plain", choices=LOSS_WEIGHTINGS)
    snr_gamma: float = option(5.0, "of --loss_weighting min_snr", check=Number(above=True))
    timestep_density: str = option("uniform", choices=TIMESTEP_DENSITIES)
    parameter_dropout: float = option(0.5, "prompts without MR parameters", check=SHARE)
    prompt_dropout: float = option(0.1, "empty prompts", check=SHARE)
    field_dropout: float = option(0.0, "each field of a prompt, alone", check=SHARE)
    demographic_dropout: float = option(0.5, "prompts without age and sex", check=SHARE)
    gradient_checkpointing: bool = option(False, "less memory, more time")
    validation_scans: int = option(4, "0 for none", check=Whole(0, 1024), on_resume="free")
    learning_rate: float = option(4e-4, check=RATE, in_card=True)
