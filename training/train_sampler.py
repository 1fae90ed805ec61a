"""Train a k-space sampler together with the reconstruction that its masks are for.

    accelerate launch training/train_sampler.py --sampler per_contrast --network hru_net:width=16 \
        --contrasts multi_echo --bank runs/bank.npz --output_dir runs/joint --max_train_steps 2000

    ... --sampler per_contrast:learn_split=true --aim task      # masks for the T2* map
    ... --sampler pattern_generator:ratios=[0.06,0.25] --network unet --loss gaussian --predict_std
    ... --sampler fixed:mask=gaussian1d                         # the network alone learns
    ... --sampler greedy --pretrained_model_name_or_path runs/joint/pipeline

Subjects come from the phantom on the fly (``--bank``) or, in one contrast, from a set made by
``ctxrecon prepare`` (``--train_data_dir``); coils and noise are simulated. Everything about a
sample follows from the seed and its number, so a run that is resumed goes on as if it had not
stopped.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import torch

from ctxrecon.coils.calibration import MIN_CALIBRATION
from ctxrecon.datasets import ShardSlices
from ctxrecon.errors import InputError
from ctxrecon.masks.learned import SAMPLERS, GreedyPolicy, SequentialSampler
from ctxrecon.options import split_options
from ctxrecon.phantom import (
    ECHO_TIMES,
    AnatomyBank,
    PhantomContrasts,
    PhantomSlices,
    multi_echo,
    pd_pair,
)
from ctxrecon.pipelines import JointPipeline, load_joint, load_text_encoder
from ctxrecon.reconstructors import MULTI_CONTRAST, RECONSTRUCTORS
from ctxrecon.tasks import train_t2star_mlp
from ctxrecon.training import (
    TrainingParser,
    add_training_arguments,
    build_accelerator,
    check_run,
    parse_training_args,
    run_script,
    train,
)
from ctxrecon.training.arguments import number, rate, resolution, share, whole
from ctxrecon.training.card import model_card, write_pipeline
from ctxrecon.training.contrast_validation import CONTRASTS, ContrastScans
from ctxrecon.training.contrasts import ContrastSamples, ContrastSource, OneContrast
from ctxrecon.training.greedy import GreedyTraining
from ctxrecon.training.joint import (
    AIMS,
    JOINT_LOSSES,
    JointObjective,
    JointTraining,
    with_joint_weights,
)
from ctxrecon.training.log import log_validation
from ctxrecon.training.loop import Weights
from ctxrecon.training.options import build_from_text
from ctxrecon.training.samples import PreparedSlices
from ctxrecon.training.scans import check_calibration

logger = logging.getLogger("ctxrecon.training.sampler")

_ABOUT = """\
# A k-space sampler and the reconstruction that its masks were learned with

Load it with `ctxrecon.pipelines.load_joint(folder)`. Averaged weights."""
_TAGS = ("MRI", "reconstruction", "k-space", "sampling")
_NETWORKS = {**RECONSTRUCTORS, **MULTI_CONTRAST}
_ACCELERATION = 4.0
_COUNT = {"one": 1, "multi_echo": len(ECHO_TIMES), "pd_pair": 2}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line, named as in the diffusers training scripts."""
    parser = TrainingParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--sampler", help=f"{', '.join(SAMPLERS)}, with options: loupe:lines=false")
    add("--network", help=f"{', '.join(_NETWORKS)}, with options: hru_net:width=16:blocks=2")
    add("--pretrained_model_name_or_path", help="pipeline to go on with, instead of --network")
    add("--text_encoder", help="trained CLIP, whose embedding of the prompt modulates features")
    add("--predict_std", action="store_true", help="the error of each pixel as well")
    add("--contrasts", choices=CONTRASTS, default="one", help="of each subject")
    add("--bank", type=Path, help="anatomies from training/build_bank.py")
    add("--anatomy", help="of the bank, such as brain; all of it by default")
    add("--train_data_dir", type=Path, help="from ctxrecon prepare, one contrast")
    add("--resolution", type=resolution, default=128, help="matrix size, that of the masks")
    add("--acceleration", type=number(1), help="of a new sampler, over all contrasts; 4 by default")
    add("--center_fraction", type=share, help="likewise; 0.32 / acceleration of the lines")
    add("--num_coils", type=whole(1, 256), default=8)
    add("--snr", type=number(0, 1e9), default=100.0, help="of the bright signal; 0 for no noise")
    add("--scans", type=whole(1), help="how many scans there are; endless by default")
    add("--aim", choices=AIMS, default="reconstruction", help="the images, the T2* map, or both")
    add("--loss", choices=JOINT_LOSSES, default="l1", help="of the images")
    add(
        "--task_weight",
        type=number(above=True),
        default=1.0,
        help="of the map's squared error, for both",
    )
    add("--sampler_learning_rate", type=rate, default=1e-2)
    add("--validation_scans", type=whole(0, 1024), default=4, help="0 for none")
    add_training_arguments(parser, learning_rate=1e-3)
    return parse_training_args(parser, argv)


def starting_point(args: argparse.Namespace) -> JointPipeline:
    """The sampler and network to train: new ones, or those to go on with."""
    if (args.network is None) == (args.pretrained_model_name_or_path is None):
        raise InputError("give either --network or --pretrained_model_name_or_path")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        if args.network:
            if args.sampler is None:
                raise InputError("give the --sampler to train with this network")
            network, encoder, tokenizer = _new_network(args)
            relaxometer = None
        else:
            if args.text_encoder or args.predict_std:
                raise InputError(
                    "--text_encoder and --predict_std are of a new --network: leave them out"
                )
            old = load_joint(args.pretrained_model_name_or_path)
            network, encoder, tokenizer = old.reconstructor, old.text_encoder, old.tokenizer
            relaxometer = old.relaxometer
            if not args.sampler and (args.acceleration or args.center_fraction is not None):
                raise InputError(
                    "--acceleration and --center_fraction are of a new --sampler: leave them out"
                )
        sampler = _new_sampler(args) if args.sampler else old.sampler
    _check_contrasts(sampler, args.contrasts)
    if args.aim == "reconstruction":
        relaxometer = None
    elif args.contrasts != "multi_echo":
        raise InputError("a T2* map needs echoes: give --contrasts multi_echo")
    else:
        relaxometer = relaxometer or train_t2star_mlp(
            ECHO_TIMES, generator=torch.Generator().manual_seed(args.seed)
        )
    count = _COUNT[args.contrasts]
    return JointPipeline(network, sampler, relaxometer, encoder, tokenizer, contrasts=count)


def _check_contrasts(sampler: Any, contrasts: str) -> None:
    """Refuse a sampler of another number of contrasts than there are."""
    count = _COUNT[contrasts]
    own = getattr(sampler, "contrasts", count)
    if own != count:
        raise InputError(f"the sampler is of {own} contrasts, --contrasts {contrasts} has {count}")
    if count > 1 and isinstance(sampler, SequentialSampler | GreedyPolicy):
        raise InputError(
            f"a {type(sampler).__name__} chooses by one image: give --contrasts one, or another "
            "sampler"
        )


def _new_network(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """A network with new weights, and its text encoder."""
    name, options = split_options(args.network)
    encoder, tokenizer, settled = None, None, {}
    if args.text_encoder:
        encoder, tokenizer = load_text_encoder(args.text_encoder)
        settled["text_width"] = encoder.config.hidden_size
    if args.predict_std:
        settled["predict_std"] = True
    if name == "unet_i" and "contrasts" not in options:
        settled["contrasts"] = _COUNT[args.contrasts]
    return build_from_text("--network", args.network, _NETWORKS, settled), encoder, tokenizer


def _new_sampler(args: argparse.Namespace) -> Any:
    """A sampler with new weights."""
    name, options = split_options(args.sampler)
    settled: dict[str, Any] = {"shape": (args.resolution, args.resolution)}
    if args.center_fraction is not None:
        settled["center_fraction"] = args.center_fraction
    serves_ratios = "ratios" in options or name == "pattern_generator"
    if serves_ratios and args.acceleration is not None:
        raise InputError(f"{name} serves a range of ratios: leave --acceleration out")
    if args.acceleration is not None:
        settled["acceleration"] = args.acceleration
    elif not serves_ratios and "acceleration" not in options:
        settled["acceleration"] = _ACCELERATION
    if name == "per_contrast" and "contrasts" not in options:
        settled["contrasts"] = _COUNT[args.contrasts]

    def build() -> Any:
        with torch.random.fork_rng(devices=[]):
            return build_from_text("--sampler", args.sampler, SAMPLERS, settled)

    sampler = build()
    if args.center_fraction is None and "center_fraction" not in options:
        try:
            check_calibration(calibration(sampler), args.num_coils, "the sampler")
        except InputError:
            settled["center_fraction"] = MIN_CALIBRATION / args.resolution
            sampler = build()
            logger.info(
                "the sampler keeps a centre of --center_fraction %g for the coil maps",
                settled["center_fraction"],
            )
    return sampler


def source(args: argparse.Namespace) -> ContrastSource:
    """Where subjects come from."""
    if (args.bank is None) == (args.train_data_dir is None):
        raise InputError("give either --bank or --train_data_dir")
    if args.train_data_dir:
        if args.anatomy:
            raise InputError("--anatomy chooses from a bank: leave it out")
        if args.contrasts != "one":
            raise InputError("slices of --train_data_dir come one by one: give --contrasts one")
        return OneContrast(PreparedSlices(ShardSlices(args.train_data_dir), seed=args.seed))
    bank = AnatomyBank.load(args.bank)
    if args.anatomy:
        bank = bank.of_anatomy(args.anatomy)
    if args.contrasts == "one":
        slices = PhantomSlices(bank, resolution=args.resolution, seed=args.seed, noise=0.0)
        return OneContrast(slices)
    protocols = multi_echo if args.contrasts == "multi_echo" else pd_pair
    return PhantomContrasts(bank, protocols, resolution=args.resolution, seed=args.seed)


def calibration(sampler: Any) -> torch.Tensor:
    """What every mask of the sampler takes, ``(1, 1, ny, nx)`` bool."""
    acceleration = None
    if sampler.acceleration is None:  # the smallest centre of all ratios
        acceleration = 1 / min(sampler.ratios)
    return sampler.as_mask(sampler.budget(acceleration).center)[None, None]


def main(argv: list[str] | None = None) -> None:
    """Data, model, loop."""
    args = parse_args(argv)
    check_run(args)
    pipe = starting_point(args)
    model: Any
    if isinstance(pipe.sampler, GreedyPolicy):
        if args.aim != "reconstruction" or args.loss != "l1":
            raise InputError(
                "a greedy policy is rewarded by the ℓ1 error of the image: leave --aim and --loss "
                "out"
            )
        if args.network:
            raise InputError(
                "a greedy policy is trained on a reconstruction that works: train one first, and "
                "give it as --pretrained_model_name_or_path"
            )
        model = GreedyTraining(pipe, seed=args.seed)
    else:
        objective = JointObjective(args.aim, args.loss, args.task_weight)
        model = JointTraining(pipe, objective, args.seed)
    centre = calibration(pipe.sampler)
    check_calibration(centre, args.num_coils, "the sampler")
    samples = ContrastSamples(
        source(args),
        centre,
        args.scans,
        args.num_coils,
        args.snr,
        pipe.tokenizer,
        args.seed,
    )
    blank = with_joint_weights(pipe, {})  # the parts themselves may be spread over processes
    accelerator = build_accelerator(args)

    def export(weights: Weights) -> None:
        card = model_card(args.output_dir, sys.argv, _ABOUT, _TAGS)
        write_pipeline(with_joint_weights(blank, weights), args.output_dir / "pipeline", card)

    scans = None

    def validate(step: int, weights: Weights) -> None:
        nonlocal scans
        scans = scans or ContrastScans(
            args.validation_scans,
            pipe.sampler.shape[0],
            args.contrasts,
            args.anatomy,
            args.num_coils,
            args.snr,
        )
        picture = args.output_dir / f"validation-{step}.png"
        pipeline = with_joint_weights(blank, weights).to(accelerator.device)
        scores = scans.validate(pipeline, picture)
        log_validation(accelerator, args.output_dir, step, scores, picture)

    train(
        args,
        accelerator,
        model.train(),
        samples,
        export=export,
        validate=validate if args.validation_scans else None,
        clip_apart=("sampler",),
        rates={"sampler": args.sampler_learning_rate},
    )


if __name__ == "__main__":
    run_script(main)
