"""Train or fine-tune the text-conditioned diffusion prior.

    accelerate launch training/train_prior.py --bank runs/bank.npz --text_encoder runs/clip/clip \
        --output_dir runs/prior --max_train_steps 20000 --mixed_precision bf16

Slices come from the phantom on the fly (``--bank``), from sets made by ``ctxrecon prepare``
(``--train_data_dir``), or from both by ``--data_weights``. Every sample's image, noise, timestep
and dropout follow from the seed and its number, so a run that is resumed goes on as if it had not
stopped, and several processes see what one would.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ctxrecon.datasets import ShardSlices
from ctxrecon.errors import InputError
from ctxrecon.phantom import AnatomyBank, PhantomSlices
from ctxrecon.priors import size_multiple
from ctxrecon.training import (
    TrainingParser,
    add_training_arguments,
    build_accelerator,
    check_run,
    parse_training_args,
    run_script,
    train,
)
from ctxrecon.training.arguments import number, resolution, share, whole
from ctxrecon.training.card import model_card
from ctxrecon.training.log import log_validation
from ctxrecon.training.loop import Weights
from ctxrecon.training.losses import LOSS_WEIGHTINGS, PREDICTION_TYPES, TIMESTEP_DENSITIES
from ctxrecon.training.prior import Prior, export_pipeline, starting_point, with_weights
from ctxrecon.training.samples import PreparedSlices, PriorSamples, Source
from ctxrecon.training.validation import HeldOutScans

_ABOUT = """\
# A metadata-prompted diffusion prior on complex MR images

Load it with `ctxrecon.pipelines.load_prior(folder)`. Averaged weights in half precision."""
_TAGS = ("MRI", "reconstruction", "diffusion", "k-space")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line, named as in the diffusers training scripts."""
    parser = TrainingParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--pretrained_model_name_or_path", help="prior to fine-tune; a new one by default")
    add("--subfolder", help="of its U-Net, such as fastmri in DHCAI/ContextMRI")
    add("--scheduler", help="folder, where the checkpoint has none")
    add("--tokenizer", help="folder or hub name, where the checkpoint has none")
    add("--text_encoder", help="trained CLIP, such as openai/clip-vit-large-patch14")
    add("--train_text_encoder", action="store_true", help="jointly, not frozen")
    add("--unet_config", type=Path, help="JSON of a new UNet2DConditionModel; small by default")
    add("--prediction_type", choices=PREDICTION_TYPES, default="v_prediction")
    add("--bank", type=Path, help="anatomies from training/build_bank.py")
    add("--train_data_dir", type=Path, nargs="*", default=[], help="from ctxrecon prepare")
    add(
        "--data_weights",
        type=number(above=True),
        nargs="*",
        help="share of the bank, then of each folder",
    )
    add("--resolution", type=resolution, nargs="+", default=[128], help="sizes to draw from")
    add(
        "--field_of_view",
        type=number(0, 1, above=True),
        default=1.0,
        help="smallest part of a slice that is shown",
    )
    add("--loss_weighting", choices=LOSS_WEIGHTINGS, default="plain")
    add("--snr_gamma", type=number(above=True), default=5.0, help="of --loss_weighting min_snr")
    add("--timestep_density", choices=TIMESTEP_DENSITIES, default="uniform")
    add("--parameter_dropout", type=share, default=0.5, help="prompts without MR parameters")
    add("--prompt_dropout", type=share, default=0.1, help="empty prompts")
    add("--field_dropout", type=share, default=0.0, help="each field of a prompt, alone")
    add("--gradient_checkpointing", action="store_true", help="less memory, more time")
    add("--validation_scans", type=whole(0, 1024), default=4, help="0 for none")
    add_training_arguments(parser, learning_rate=4e-4)
    return parse_training_args(parser, argv)


def sources(args: argparse.Namespace) -> list[Source]:
    """Where slices come from: the bank first, then each folder."""
    found: list[Source] = []
    if args.bank:
        found.append(
            PhantomSlices(
                AnatomyBank.load(args.bank),
                resolution=max(args.resolution),
                seed=args.seed,
                field_of_view=args.field_of_view,
            )
        )
    for folder in args.train_data_dir:
        found.append(
            PreparedSlices(ShardSlices(folder), seed=args.seed, field_of_view=args.field_of_view)
        )
    return found


def main(argv: list[str] | None = None) -> None:
    """Data, model, loop."""
    args = parse_args(argv)
    check_run(args)
    accelerator = build_accelerator(args)
    pipe = starting_point(args)
    multiple = size_multiple(pipe.unet)
    if odd := [n for n in args.resolution if n % multiple]:
        raise InputError(f"--resolution {odd[0]}: expected multiples of {multiple} from 16 on")
    if args.gradient_checkpointing:
        pipe.unet.enable_gradient_checkpointing()
    data = sources(args)
    samples = PriorSamples(
        data,
        args.data_weights or [1.0] * len(data),
        pipe.tokenizer,
        args.resolution,
        pipe.scheduler.config.num_train_timesteps,
        density=args.timestep_density,
        parameter_dropout=args.parameter_dropout,
        prompt_dropout=args.prompt_dropout,
        field_dropout=args.field_dropout,
        seed=args.seed,
    )
    prior = Prior(
        pipe,
        train_text_encoder=args.train_text_encoder,
        weighting=args.loss_weighting,
        snr_gamma=args.snr_gamma,
    )
    blank = with_weights(pipe, {})  # the network itself may be spread over processes

    def export(weights: Weights) -> None:
        card = model_card(args.output_dir, sys.argv, _ABOUT, _TAGS)
        export_pipeline(with_weights(blank, weights), args.output_dir / "pipeline", card)

    scans = None

    def validate(step: int, weights: Weights) -> None:
        nonlocal scans
        scans = scans or HeldOutScans(args.validation_scans, max(args.resolution))
        picture = args.output_dir / f"validation-{step}.png"
        averaged = with_weights(blank, weights).to(accelerator.device)
        scores = scans.validate(averaged, picture)
        log_validation(accelerator, args.output_dir, step, scores, picture)

    train(
        args,
        accelerator,
        prior,
        samples,
        export=export,
        validate=validate if args.validation_scans else None,
    )


if __name__ == "__main__":
    run_script(main)
