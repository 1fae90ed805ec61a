r"""Train a k-space sampler together with a downstream task.

    accelerate launch training/train_task.py --task segmentation --target mass_or_edema \
        --sampler pattern_generator:lines=false --bank runs/masses.npz --output_dir runs/masses \
        --max_train_steps 2000

    ... --sampler loupe --acceleration 8                        # one acceleration
    ... --sampler variable_density2d --acceleration 8           # train the networks only
    ... --network paper --resolution 128                        # the published sizes
    ... --network two_unets --sampler loupe                     # SemuNet
    ... --task classification --bank runs/knees.npz --entropy_weight 0.1 --magnitude_images

Segmentations vary between draws as between raters. Findings are classified from measurements whose
other information is limited by --entropy_weight. Methods with several stages continue from the
pipeline of the previous stage, for example Tackle, which first trains the reconstruction:

    ... --network two_unets --sampler loupe --aim reconstruction --output_dir runs/images
    ... --pretrained_model_name_or_path runs/images/pipeline --aim task --output_dir runs/tackle

LOUPE-UNet-RS adds --freeze sampler reconstruction in the second stage. The first stage of LI-Net
(--network li_net) is --aim labels. Subjects are simulated by the phantom, including their raters.
Samples are determined by the seed and their number, so that an interrupted run resumes exactly.
"""

from __future__ import annotations

from typing import Any

import torch

from ctxrecon.errors import InputError
from ctxrecon.pipelines import TaskPipeline
from ctxrecon.tasks import FINDINGS, LatentSegmenter, LINet, TwoUNets
from ctxrecon.training.card import About
from ctxrecon.training.loop import build_accelerator, train
from ctxrecon.training.parser import TrainingCommand
from ctxrecon.training.run_folder import check_run
from ctxrecon.training.samplers import calibration, fit_spectrum
from ctxrecon.training.scans import check_calibration, check_magnitude
from ctxrecon.training.tasks.build import starting_point
from ctxrecon.training.tasks.config import TasksConfig
from ctxrecon.training.tasks.data import (
    FindingTruth,
    RaterTruth,
    TaskSamples,
    Truth,
    phantom_source,
    usual_raters,
)
from ctxrecon.training.tasks.objective import (
    ClassificationTraining,
    LINetTraining,
    SegmentationTraining,
    TaskTraining,
    TaskWeights,
    TwoUNetsTraining,
)
from ctxrecon.training.tasks.validation import TaskScans
from ctxrecon.training.trained import TrainedPipeline

_LATENT_IMAGE = 0.1
"""Default weight λ₃ of the image of latent segmenters, see :class:`SegmentationTraining`."""

_ABOUT = About(
    "A k-space sampler and the task that its samples were learned for",
    "Load it with `ctxrecon.load(folder)`. Averaged weights.",
    ("MRI", "segmentation", "classification", "k-space", "sampling"),
)


def train_task(config: TasksConfig) -> None:
    """Train a sampler and a task with the given configuration, or resume a run.

    Raises:
        InputError: If options contradict each other, data or parts do not match, or the output
            folder cannot be used.
    """
    check_run(config)
    _check(config)
    pipe = starting_point(config)
    center = calibration(pipe.sampler)
    check_calibration(center, config.num_coils, "the sampler")
    _check_aim(config, pipe)
    samples = TaskSamples(
        phantom_source(config),
        _truth(config),
        center,
        config.scans,
        config.num_coils,
        config.snr,
        config.magnitude_images,
        config.seed,
    )
    fit_spectrum(pipe.sampler, samples.first_images)
    model = _model(config, pipe, samples)
    accelerator = build_accelerator(config)
    trained = TrainedPipeline(
        config,
        accelerator,
        pipe,
        _ABOUT,
        lambda: TaskScans(config.validation_scans, config, center),
    )
    train(
        config,
        accelerator,
        model.train(),
        samples,
        export=trained.export,
        validate=trained.validate if config.validation_scans else None,
        clip_apart=("sampler",),
        rates={"sampler": config.sampler_learning_rate},
        undecayed=("sampler",),
    )


def _check(config: TasksConfig) -> None:
    """Validate the combination of options."""
    check_magnitude(config.magnitude_images, config.num_coils)
    if config.task == "classification" and config.field_of_view < 1:
        raise InputError(
            "--field_of_view applies to segmentation only, since classification uses whole slices: "
            "omit it"
        )
    if not config.entropy_weight:
        return
    if config.aim == "labels":
        raise InputError("--aim labels trains no sampler: omit --entropy_weight")
    images = config.aim == "both" and config.reconstruction_weight != 0
    if config.task == "segmentation" and (images or config.aim == "reconstruction"):
        advice = "use --reconstruction_weight 0, or " if images else ""
        raise InputError(
            "suppressing the entropy contradicts the reconstruction of an image: "
            f"{advice}omit --entropy_weight"
        )
    if not config.snr:
        raise InputError(
            "without noise the entropy of real images is unbounded: set --snr, or omit "
            "--entropy_weight"
        )


def _check_aim(config: TasksConfig, pipe: TaskPipeline) -> None:
    """Validate that the network supports the training stage."""
    network = pipe.network
    aims: tuple[str, ...] = ("both",)
    advice = "omit --aim"
    if isinstance(network, TwoUNets):
        aims, advice = ("both", "task", "reconstruction"), "use one of them"
    elif isinstance(network, LINet):
        aims, advice = ("labels", "task"), "use --aim labels first, then --aim task"
    if config.aim not in aims:
        raise InputError(
            f"a {type(network).__name__} is trained for {' or '.join(aims)}, not {config.aim}: "
            f"{advice}"
        )
    if config.aim == "task" and config.network is not None:
        raise InputError(
            "--aim task continues from an earlier stage: pass its pipeline as "
            "--pretrained_model_name_or_path, without --network"
        )
    if config.aim != "both" and config.reconstruction_weight is not None:
        raise InputError("--reconstruction_weight applies to --aim both only: omit it")
    if "reconstruction" in config.freeze and not isinstance(network, TwoUNets):
        raise InputError(f"a {type(network).__name__} has no reconstruction to freeze")


def _truth(config: TasksConfig) -> Truth:
    if config.task == "classification":
        return FindingTruth(tuple(FINDINGS))
    return RaterTruth(usual_raters(config), config.raters, config.resolution)


def _model(config: TasksConfig, pipe: TaskPipeline, samples: TaskSamples) -> TaskTraining:
    """Return the pipeline as a module that computes the loss."""
    network: Any = pipe.network
    reconstruction = config.reconstruction_weight
    if reconstruction is None:
        reconstruction = _LATENT_IMAGE if isinstance(network, LatentSegmenter) else 1.0
    weights = TaskWeights(
        config.latent_weight, config.latent_warmup_steps, reconstruction, config.entropy_weight
    )
    entropies = None
    if config.entropy_weight:
        entropies = samples.statistics().entropies(1 / config.snr)
    for part in config.freeze:
        (pipe.sampler if part == "sampler" else network.reconstruction).requires_grad_(False)
    if config.task == "classification":
        return ClassificationTraining(pipe, weights, entropies)
    if isinstance(network, TwoUNets):
        return TwoUNetsTraining(pipe, weights, entropies, config.aim)
    if isinstance(network, LINet):
        return LINetTraining(pipe, weights, entropies, config.aim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 1)
        return SegmentationTraining(pipe, weights, entropies)


_COMMAND = TrainingCommand(TasksConfig, train_task, description=__doc__)
parse_args, main = _COMMAND.parse_args, _COMMAND.main
