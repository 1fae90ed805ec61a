r"""Train a k-space sampler together with the reconstruction that its masks are for.

    accelerate launch training/train_sampler.py --sampler per_contrast --network hru_net:width=16 \
        --contrasts multi_echo --bank runs/bank.npz --output_dir runs/joint --max_train_steps 2000

    ... --sampler per_contrast:learn_split=true --aim task      # masks for the T2* map
    ... --sampler pattern_generator:ratios=[0.06,0.25] --network unet --loss gaussian --predict_std
    ... --sampler fixed:mask=gaussian1d                         # the network alone learns
    ... --sampler fixed:mask=spectrum2d      # the strongest samples of the first training scans
    ... --sampler greedy --pretrained_model_name_or_path runs/joint/pipeline

Subjects come from the phantom on the fly (``--bank``) or, in one contrast, from a set made by
``ctxrecon prepare`` (``--train_data_dir``); coils and noise are simulated. Everything about a
sample follows from the seed and its number, so a run that is resumed goes on as if it had not
stopped.
"""

from __future__ import annotations

from typing import Any

from ctxrecon.errors import InputError
from ctxrecon.masks.learned import GreedyPolicy
from ctxrecon.training.card import About
from ctxrecon.training.loop import build_accelerator, train
from ctxrecon.training.masks.build import starting_point
from ctxrecon.training.masks.config import MasksConfig
from ctxrecon.training.masks.data import ContrastSamples, source
from ctxrecon.training.masks.greedy import GreedyTraining
from ctxrecon.training.masks.objective import JointObjective, JointTraining
from ctxrecon.training.masks.validation import ContrastScans
from ctxrecon.training.parser import TrainingCommand
from ctxrecon.training.run_folder import check_run
from ctxrecon.training.samplers import calibration, fit_spectrum
from ctxrecon.training.scans import check_calibration
from ctxrecon.training.trained import TrainedPipeline

_ABOUT = About(
    "A k-space sampler and the reconstruction that its masks were learned with",
    "Load it with `ctxrecon.pipelines.load_joint(folder)`. Averaged weights.",
    ("MRI", "reconstruction", "k-space", "sampling"),
)


def train_masks(config: MasksConfig) -> None:
    """Train a sampler of masks as configured, with its reconstruction.

    A run that was stopped goes on where it is asked to.

    Raises:
        InputError: options that do not belong together, data or parts that do not fit, or a folder
            that cannot take the run.
    """
    check_run(config)
    pipe = starting_point(config)
    model = _model(config, pipe)
    center = calibration(pipe.sampler)
    check_calibration(center, config.num_coils, "the sampler")
    samples = ContrastSamples(
        source(config),
        center,
        config.scans,
        config.num_coils,
        config.snr,
        pipe.tokenizer,
        config.seed,
        config.magnitude_images,
    )
    fit_spectrum(pipe.sampler, samples.first_targets)
    accelerator = build_accelerator(config)
    trained = TrainedPipeline(
        config,
        accelerator,
        pipe,
        _ABOUT,
        lambda: ContrastScans(
            config.validation_scans,
            pipe.sampler.shape[0],
            config.contrasts,
            config.anatomy,
            config.num_coils,
            config.snr,
            magnitude=config.magnitude_images,
        ),
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
    )


def _model(config: MasksConfig, pipe: Any) -> JointTraining | GreedyTraining:
    """The pipeline as a module whose call is the loss."""
    if not isinstance(pipe.sampler, GreedyPolicy):
        objective = JointObjective(config.aim, config.loss, config.task_weight)
        return JointTraining(pipe, objective)
    if config.aim != "reconstruction" or config.loss != "l1":
        raise InputError(
            "a greedy policy is rewarded by the ℓ1 error of the image: leave --aim and --loss out"
        )
    if config.network:
        raise InputError(
            "a greedy policy is trained on a reconstruction that works: train one first, and give "
            "it as --pretrained_model_name_or_path"
        )
    return GreedyTraining(pipe, seed=config.seed)


_COMMAND = TrainingCommand(MasksConfig, train_masks, description=__doc__)
parse_args, main = _COMMAND.parse_args, _COMMAND.main
