"""The options of training a sampler with a task."""

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
    """The options of training a sampler with a task, named as in the diffusers scripts."""

    task: str = option(
        "segmentation",
        "of brains or knees, or classification of the findings of knees",
        choices=TASKS,
        on_resume="refused",
        in_card=True,
    )
    target: str = option(
        "mass",
        "what is segmented",
        choices=SEGMENTATIONS,
        on_resume="refused",
        in_card=True,
    )
    sampler: str | None = option(
        None,
        f"{', '.join(SAMPLERS)}, with options, or the name of a fixed mask: {', '.join(MASKS)}; "
        "pattern_generator by default",
        on_resume="refused",
        in_card=True,
    )
    network: str | None = option(
        None,
        "small or paper, with options: small:width=8:layers=1, paper:decoder_sees_measurement=true;"
        " two_unets, li_net, or the same of the published sizes, two_unets_paper, li_net_paper; "
        "small by default",
        on_resume="refused",
        in_card=True,
    )
    pretrained_model_name_or_path: str | None = option(
        None,
        "pipeline of an earlier run, whose sampler and network are trained further where none is "
        "given",
        in_card=True,
    )
    aim: str = option(
        "both",
        "the task alone, the reconstruction that two_unets segments, the labels whose latent "
        "li_net predicts, or, of segmentations, task and reconstruction",
        choices=AIMS,
        on_resume="refused",
        in_card=True,
    )
    freeze: list[str] = option(
        [],
        "what stays as it is: sampler, reconstruction",
        choices=PARTS,
        may_be_empty=True,
        on_resume="refused",
        in_card=True,
    )
    bank: Path = option(text="anatomies from training/build_bank.py", in_card=True)
    contrast: str | None = option(
        None, "of all scans, such as T1POST; as often as in real ones by default", in_card=True
    )
    resolution: int = option(128, "matrix size, that of the masks", check=RESOLUTION, in_card=True)
    field_of_view: float = option(
        1.0,
        "part of the anatomy's width and height that is imaged, around what is segmented",
        check=Number(0.1, 1),
        in_card=True,
    )
    acceleration: float | None = option(
        None, "of the sampler, where it serves one; 8 by default", check=Number(1), in_card=True
    )
    center_fraction: float | None = option(
        None, "that every mask takes; that of the other masks by default", check=SHARE, in_card=True
    )
    num_coils: int = option(
        1, "1 for the image's own k-space, without a coil", check=Whole(1, 256), in_card=True
    )
    snr: float = option(50.0, "of the bright signal; 0 for no noise", check=Number(0, 1e9))
    magnitude_images: bool = option(
        False,
        "scan the magnitudes, with --num_coils 1: k-space is then conjugate symmetric",
        on_resume="refused",
        in_card=True,
    )
    scans: int | None = option(
        None, "how many scans there are; endless by default", check=Whole(1), in_card=True
    )
    raters: int = option(6, "who segmented every slice", check=Whole(1, 1024), in_card=True)
    rater_spread: float = option(
        1.0, "of their boundaries, relative to the usual one", check=Number(0, 100), in_card=True
    )
    latent_weight: float = option(
        1.0,
        "of the divergence of the latents; 1 is the bound of the likelihood",
        check=Number(0),
        in_card=True,
    )
    latent_warmup_steps: int = option(
        500,
        "in which the divergence comes to its weight: latents that it costs too much to use "
        "before they are of use would stay so",
        check=Whole(0, 10**9),
        in_card=True,
    )
    reconstruction_weight: float | None = option(
        None, "of the image's part in the loss, for segmentation: 1 by default", check=Number(0)
    )
    entropy_weight: float = option(
        0.0,
        "of the entropy of a sample, which suppresses what else measurements tell",
        check=Number(0),
        in_card=True,
    )
    sampler_learning_rate: float = option(1e-2, check=RATE, in_card=True)
    validation_scans: int = option(16, "0 for none", check=Whole(0, 4096), on_resume="free")
