r"""Train or fine-tune the text-conditioned diffusion prior.

    accelerate launch training/train_prior.py --bank runs/bank.npz --text_encoder runs/clip/clip \
        --output_dir runs/prior --max_train_steps 20000 --mixed_precision bf16

Slices are simulated by the phantom (``--bank``), read from sets written by ``ctxrecon prepare``
(``--train_data_dir``), or mixed by ``--data_weights``. Magnitude images receive a phase and a
shading. The image, noise, timestep and dropout of a sample are determined by the seed and its
number: an interrupted run resumes exactly, and several processes see the same samples as one.
``--max_train_minutes`` limits the training time and adapts the learning rate to it.
"""

from __future__ import annotations

from ctxrecon.errors import InputError
from ctxrecon.priors import size_multiple
from ctxrecon.training.card import About
from ctxrecon.training.loop import build_accelerator, train
from ctxrecon.training.parser import TrainingCommand
from ctxrecon.training.prior.build import starting_point
from ctxrecon.training.prior.config import PriorConfig
from ctxrecon.training.prior.data import PriorSamples, sources
from ctxrecon.training.prior.objective import Prior
from ctxrecon.training.prior.validation import HeldOutScans
from ctxrecon.training.run_folder import check_run
from ctxrecon.training.trained import TrainedPipeline

_ABOUT = About(
    "A metadata-prompted diffusion prior on complex MR images",
    "Load it with `ctxrecon.pipelines.load_prior(folder)`. Averaged weights in half precision.",
    ("MRI", "reconstruction", "diffusion", "k-space"),
)


def train_prior(config: PriorConfig) -> None:
    """Train a prior with the given configuration, or resume a run.

    Raises:
        InputError: If options contradict each other, data or parts do not match, or the output
            folder cannot be used.
    """
    check_run(config)
    accelerator = build_accelerator(config)
    pipe = starting_point(config)
    multiple = size_multiple(pipe.unet)
    if odd := [n for n in config.resolution if n % multiple]:
        raise InputError(f"--resolution {odd[0]}: expected multiples of {multiple}, at least 16")
    if config.gradient_checkpointing:
        pipe.unet.enable_gradient_checkpointing()
    data = sources(config)
    samples = PriorSamples(
        data,
        config.data_weights or [1.0] * len(data),
        pipe.tokenizer,
        config.resolution,
        pipe.scheduler.config.num_train_timesteps,
        field_of_view=config.field_of_view,
        native_share=config.native_share,
        density=config.timestep_density,
        parameter_dropout=config.parameter_dropout,
        prompt_dropout=config.prompt_dropout,
        field_dropout=config.field_dropout,
        demographic_dropout=config.demographic_dropout,
        seed=config.seed,
    )
    prior = Prior(
        pipe,
        train_text_encoder=config.train_text_encoder,
        weighting=config.loss_weighting,
        snr_gamma=config.snr_gamma,
    )
    trained = TrainedPipeline(
        config,
        accelerator,
        pipe,
        _ABOUT,
        lambda: HeldOutScans(config.validation_scans, max(config.resolution)),
        half=True,
    )
    train(
        config,
        accelerator,
        prior,
        samples,
        render=samples.render,
        export=trained.export,
        validate=trained.validate if config.validation_scans else None,
    )


_COMMAND = TrainingCommand(PriorConfig, train_prior, description=__doc__)
parse_args, main = _COMMAND.parse_args, _COMMAND.main
