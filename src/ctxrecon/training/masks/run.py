r"""Train a k-space sampler together with the reconstruction from its samples.

    accelerate launch training/train_sampler.py --sampler per_contrast --network hru_net:width=16 \
        --contrasts multi_echo --bank runs/bank.npz --output_dir runs/joint --max_train_steps 2000

    ... --sampler per_contrast:learn_split=true --aim task      # masks for the T2* map
    ... --sampler pattern_generator:ratios=[0.06,0.25] --network unet --loss gaussian --predict_std
    ... --sampler fixed:mask=gaussian1d                         # train the network only
    ... --sampler fixed:mask=spectrum2d      # the strongest samples of the first training scans
    ... --sampler greedy --pretrained_model_name_or_path runs/joint/pipeline

Subjects are simulated by the phantom (``--bank``) or, for a single contrast, read from a set
written by ``ctxrecon prepare`` (``--train_data_dir``); coils and noise are simulated. Samples are
determined by the seed and their number, so that an interrupted run resumes exactly.
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
    """Train a sampler and its reconstruction with the given configuration, or resume a run.

    Raises:
        InputError: If options contradict each other, data or parts do not match, or the output
            folder cannot be used.
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
        undecayed=("sampler",),
    )


def _model(config: MasksConfig, pipe: Any) -> JointTraining | GreedyTraining:
    """Return the pipeline as a module that computes the loss."""
    if not isinstance(pipe.sampler, GreedyPolicy):
        objective = JointObjective(config.aim, config.loss, config.task_weight)
        return JointTraining(pipe, objective)
    if config.aim != "reconstruction" or config.loss != "l1":
        raise InputError(
            "a greedy policy is rewarded by the ℓ1 error of the image: omit --aim and --loss"
        )
    if config.network:
        raise InputError(
            "a greedy policy needs a trained reconstruction: train one first, and pass it as "
            "--pretrained_model_name_or_path"
        )
    return GreedyTraining(pipe, seed=config.seed)


_COMMAND = TrainingCommand(MasksConfig, train_masks, description=__doc__)
parse_args, main = _COMMAND.parse_args, _COMMAND.main
