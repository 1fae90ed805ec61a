"""The options of training a sampler of masks with its reconstruction."""

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
"""What a subject is imaged in: one protocol of its anatomy; five echoes; PD and PDFS."""
AIMS = ("reconstruction", "task", "both")
JOINT_LOSSES = ("l1", "mse", "ssim", "gaussian")


@dataclass(frozen=True, kw_only=True)
class MasksConfig(TrainingConfig):
    """The options of training a sampler of masks, named as in the diffusers training scripts."""

    sampler: str | None = option(
        None,
        f"{', '.join(SAMPLERS)}, with options: loupe:lines=false; or the name of a fixed mask: "
        f"{', '.join(MASKS)}",
        on_resume="refused",
        in_card=True,
    )
    network: str | None = option(
        None,
        f"{', '.join(NETWORKS)}, with options: hru_net:width=16:blocks=2",
        on_resume="refused",
        in_card=True,
    )
    pretrained_model_name_or_path: str | None = option(
        None, "pipeline to go on with, instead of --network", in_card=True
    )
    text_encoder: str | None = option(
        None, "trained CLIP, whose embedding of the prompt modulates features", in_card=True
    )
    predict_std: bool = option(
        False,
        "the error of each pixel as well, by a small network beside; by the network itself with "
        "--network unet:predict_std=joint",
        on_resume="refused",
    )
    contrasts: str = option(
        "one", "of each subject", choices=CONTRASTS, on_resume="refused", in_card=True
    )
    bank: Path | None = option(None, "anatomies from training/build_bank.py", in_card=True)
    anatomy: str | None = option(None, "of the bank, such as brain; all of it by default")
    train_data_dir: Path | None = option(None, "from ctxrecon prepare, one contrast", in_card=True)
    resolution: int = option(128, "matrix size, that of the masks", check=RESOLUTION, in_card=True)
    acceleration: float | None = option(
        None,
        "of a new sampler, over all contrasts; 4 by default",
        check=Number(1),
        in_card=True,
    )
    center_fraction: float | None = option(
        None, "likewise; 0.32 / acceleration of the lines", check=SHARE, in_card=True
    )
    num_coils: int = option(8, check=Whole(1, 256), in_card=True)
    magnitude_images: bool = option(
        False,
        "scan the magnitudes, with --num_coils 1: k-space is then conjugate symmetric",
        on_resume="refused",
        in_card=True,
    )
    snr: float = option(100.0, "of the bright signal; 0 for no noise", check=Number(0, 1e9))
    scans: int | None = option(
        None, "how many scans there are; endless by default", check=Whole(1), in_card=True
    )
    aim: str = option(
        "reconstruction", "the images, the T2* map, or both", choices=AIMS, in_card=True
    )
    loss: str = option("l1", "of the images", choices=JOINT_LOSSES, in_card=True)
    task_weight: float = option(
        1.0, "of the map's squared error, for both", check=Number(above=True)
    )
    sampler_learning_rate: float = option(1e-2, check=RATE, in_card=True)
    validation_scans: int = option(4, "0 for none", check=Whole(0, 1024), on_resume="free")
