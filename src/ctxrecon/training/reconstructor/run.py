r"""Train a reconstruction network with paired, unpaired or no labels.

    accelerate launch training/train_reconstructor.py --network varnet --bank runs/bank.npz \
        --output_dir runs/varnet --max_train_steps 2000

    ... --network unrolled --scans 300 --labels disjoint --labeled 300 --magnitude_labels \
        --loss none --adversarial wgan_gp        # no scan has a label of its own

    ... --network modl --labels none --loss none # self-supervised: no labels at all

    ... --sampler runs/knees/pipeline --accelerations 8 --num_coils 1 --magnitude_images --snr 50
                                                 # reconstruct the scans of a trained task

Slices are simulated by the phantom (``--bank``) or read from a set written by ``ctxrecon prepare``
(``--train_data_dir``); coils, noise and masks are simulated. Samples are determined by the seed and
their number, so that an interrupted run resumes exactly.
"""

from __future__ import annotations

from ctxrecon.pipelines import load_task
from ctxrecon.training.card import About
from ctxrecon.training.loop import build_accelerator, train
from ctxrecon.training.parser import TrainingCommand
from ctxrecon.training.reconstructor.build import starting_point
from ctxrecon.training.reconstructor.config import ReconstructorConfig
from ctxrecon.training.reconstructor.data import Labels, MeasurementSamples, Sampling, sources
from ctxrecon.training.reconstructor.objective import Objective, ReconstructorTraining
from ctxrecon.training.reconstructor.validation import UndersampledScans
from ctxrecon.training.run_folder import check_run
from ctxrecon.training.trained import TrainedPipeline

_ABOUT = About(
    "A network that reconstructs undersampled MR k-space",
    "Load it with `ctxrecon.pipelines.load_reconstructor(folder)`. Averaged weights.",
    ("MRI", "reconstruction", "k-space"),
)


def train_reconstructor(config: ReconstructorConfig) -> None:
    """Train a reconstructor with the given configuration, or resume a run.

    Raises:
        InputError: If options contradict each other, data or parts do not match, or the output
            folder cannot be used.
    """
    check_run(config)
    pipe = starting_point(config)
    labels = Labels(config.labels, config.labeled, config.magnitude_labels)
    objective = Objective(
        config.loss,
        config.adversarial,
        config.paired_share,
        config.paired_start,
        config.paired_end,
        config.consistency,
        config.critic_width,
        config.critic_steps,
    )
    model = ReconstructorTraining(pipe, objective, labels, config.seed)
    sampling = Sampling(
        config.masks,
        config.accelerations,
        config.center_fraction,
        config.fixed_masks,
        config.num_coils,
        config.snr,
        None if config.sampler is None else load_task(config.sampler).sampler,
        config.magnitude_images,
    )
    slices, label_source = sources(config)
    samples = MeasurementSamples(
        slices,
        sampling,
        labels,
        config.scans,
        config.resolution,
        pipe.tokenizer,
        label_source,
        seed=config.seed,
    )
    accelerator = build_accelerator(config, parts_rest=config.critic_steps > 1)
    trained = TrainedPipeline(
        config,
        accelerator,
        pipe,
        _ABOUT,
        lambda: UndersampledScans(config.validation_scans, max(config.resolution), sampling),
    )
    rates = {}
    if config.critic_learning_rate is not None:
        rates["critic"] = config.critic_learning_rate
    train(
        config,
        accelerator,
        model.train(),
        samples,
        export=trained.export,
        validate=trained.validate if config.validation_scans else None,
        clip_apart=("critic",),
        rates=rates,
    )


_COMMAND = TrainingCommand(ReconstructorConfig, train_reconstructor, description=__doc__)
parse_args, main = _COMMAND.parse_args, _COMMAND.main
