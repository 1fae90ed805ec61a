"""Train a network that reconstructs directly: with labels, with unpaired ones, or without.

    accelerate launch training/train_reconstructor.py --network varnet --bank runs/bank.npz \
        --output_dir runs/varnet --max_train_steps 2000

    ... --network unrolled --scans 300 --labels disjoint --labelled 300 --magnitude_labels \
        --loss none --adversarial wgan_gp        # no scan has a label of its own

    ... --network modl --labels none --loss none # self-supervised: no labels at all

Slices come from the phantom on the fly (``--bank``) or from a set made by ``ctxrecon prepare``
(``--train_data_dir``); coils, noise and masks are simulated. Everything about a sample follows from
the seed and its number, so a run that is resumed goes on as if it had not stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from ctxrecon.datasets import ShardSlices
from ctxrecon.errors import InputError
from ctxrecon.masks import MASKS
from ctxrecon.phantom import AnatomyBank, PhantomSlices
from ctxrecon.pipelines import ReconstructionPipeline, load_reconstructor, load_text_encoder
from ctxrecon.reconstructors import RECONSTRUCTORS
from ctxrecon.training import (
    TrainingParser,
    UsageError,
    add_training_arguments,
    build_accelerator,
    check_run,
    parse_training_args,
    run_script,
    train,
)
from ctxrecon.training.adversarial import ADVERSARIAL
from ctxrecon.training.arguments import number, rate, resolution, share, whole
from ctxrecon.training.card import model_card, write_pipeline
from ctxrecon.training.log import log_validation
from ctxrecon.training.loop import Weights
from ctxrecon.training.measurements import LABELS, Labels, MeasurementSamples, Sampling
from ctxrecon.training.options import build_from_text
from ctxrecon.training.reconstruction import (
    LOSSES,
    Objective,
    ReconstructorTraining,
    with_weights,
)
from ctxrecon.training.samples import PreparedSlices, Source
from ctxrecon.training.validation import UndersampledScans

_ABOUT = """\
# A network that reconstructs undersampled MR k-space

Load it with `ctxrecon.pipelines.load_reconstructor(folder)`. Averaged weights."""
_TAGS = ("MRI", "reconstruction", "k-space")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line, named as in the diffusers training scripts."""
    parser = TrainingParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--network", help=f"{', '.join(RECONSTRUCTORS)}, with options: varnet:cascades=4:width=12")
    add("--pretrained_model_name_or_path", help="network to go on with, in place of --network")
    add("--text_encoder", help="trained CLIP, whose embedding of the prompt modulates features")
    add("--predict_std", action="store_true", help="the error of each pixel as well")
    add("--bank", type=Path, help="anatomies from training/build_bank.py")
    add("--train_data_dir", type=Path, help="from ctxrecon prepare")
    add("--resolution", type=resolution, nargs="+", default=[128], help="sizes to draw from")
    add(
        "--field_of_view",
        type=number(0, 1, above=True),
        default=1.0,
        help="smallest part of a slice that is shown",
    )
    add("--masks", nargs="+", choices=tuple(MASKS), default=["uniform1d"])
    add("--accelerations", type=number(1), nargs="+", default=[4.0])
    add("--center_fraction", type=share, help="0.32 / acceleration of the lines by default")
    add("--fixed_masks", action="store_true", help="every scan keeps its mask")
    add(
        "--num_coils",
        type=whole(1, 256),
        nargs="+",
        default=[8],
        help="numbers of coils to draw from",
    )
    add("--snr", type=number(0, 1e9), default=100.0, help="of the bright signal; 0 for no noise")
    add("--scans", type=whole(1), help="M, how many scans there are; endless by default")
    add("--labels", choices=LABELS, default="paired")
    add("--labelled", type=whole(1), help="N, how many images partial or disjoint labels are")
    add("--magnitude_labels", action="store_true", help="partial or disjoint labels have no phase")
    add("--loss", choices=LOSSES, default="l1")
    add("--adversarial", choices=ADVERSARIAL)
    add("--paired_share", type=share, default=0.99, help="λ at the end; 1 − λ is the critic's")
    add("--paired_start", type=whole(0), default=500, help="steps with λ = 1")
    add("--paired_end", type=whole(0), default=1000, help="step from which on λ is --paired_share")
    add(
        "--consistency",
        type=number(0, 1e9),
        default=1.0,
        help="γ of ‖A x − y‖₂ without paired loss",
    )
    add("--critic_width", type=whole(1, 1024), default=4, help="features of its first convolution")
    add("--critic_steps", type=whole(1), default=1, help="its steps for one of the generator")
    add("--critic_learning_rate", type=rate, help="that of the network by default")
    add("--validation_scans", type=whole(0, 1024), default=4, help="0 for none")
    add_training_arguments(parser, learning_rate=1e-3)
    args = parse_training_args(parser, argv)
    if args.paired_end < args.paired_start:
        raise UsageError(
            f"expected --paired_end from {args.paired_start} on, where --paired_start is, got "
            f"{args.paired_end}"
        )
    return args


def starting_point(args: argparse.Namespace) -> ReconstructionPipeline:
    """The network to train: a new one, or one to go on with."""
    if (args.network is None) == (args.pretrained_model_name_or_path is None):
        raise InputError("give either --network or --pretrained_model_name_or_path")
    if args.pretrained_model_name_or_path:
        if args.text_encoder or args.predict_std:
            raise InputError(
                "--text_encoder and --predict_std are of a new --network: leave them out"
            )
        return load_reconstructor(args.pretrained_model_name_or_path)
    encoder, tokenizer, settled = None, None, {}
    if args.text_encoder:
        encoder, tokenizer = load_text_encoder(args.text_encoder)
        settled["text_width"] = encoder.config.hidden_size
    if args.predict_std:
        settled["predict_std"] = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        network = build_from_text("--network", args.network, RECONSTRUCTORS, settled)
    return ReconstructionPipeline(network, encoder, tokenizer)


def sources(args: argparse.Namespace) -> tuple[Source, Source | None]:
    """Where slices come from, and disjoint labels, if there are any: from other people."""
    if (args.bank is None) == (args.train_data_dir is None):
        raise InputError("give either --bank or --train_data_dir")
    options = {"seed": args.seed, "field_of_view": args.field_of_view}

    def phantom(bank: AnatomyBank) -> Source:
        return PhantomSlices(bank, resolution=max(args.resolution), **options)

    def prepared(slices: ShardSlices) -> Source:
        return PreparedSlices(slices, **options)

    data: Any = AnatomyBank.load(args.bank) if args.bank else ShardSlices(args.train_data_dir)
    make: Any = phantom if args.bank else prepared
    if args.labels != "disjoint":
        if args.train_data_dir:
            _check_enough("--scans", args.scans, len(data))
        return make(data), None
    share = args.scans / (args.scans + args.labelled) if args.scans and args.labelled else 0.5
    first, second = data.split(share, seed=args.seed)
    if args.train_data_dir:
        _check_enough("--labelled", args.labelled, len(second))
        _check_enough("--scans", args.scans, len(first))
    return make(first), make(second)


def _check_enough(option: str, wanted: int | None, there: int) -> None:
    """A slice that is taken twice would be two scans, one with a label and one without."""
    if wanted is not None and wanted > there:
        raise InputError(f"expected {option} of {there} slices at most, as there are, got {wanted}")


def main(argv: list[str] | None = None) -> None:
    """Data, model, loop."""
    args = parse_args(argv)
    check_run(args)
    pipe = starting_point(args)
    labels = Labels(args.labels, args.labelled, args.magnitude_labels)
    objective = Objective(
        args.loss,
        args.adversarial,
        args.paired_share,
        args.paired_start,
        args.paired_end,
        args.consistency,
        args.critic_width,
        args.critic_steps,
    )
    model = ReconstructorTraining(pipe, objective, labels, args.seed)
    sampling = Sampling(
        args.masks,
        args.accelerations,
        args.center_fraction,
        args.fixed_masks,
        args.num_coils,
        args.snr,
    )
    slices, label_source = sources(args)
    samples = MeasurementSamples(
        slices,
        sampling,
        labels,
        args.scans,
        args.resolution,
        pipe.tokenizer,
        label_source,
        seed=args.seed,
    )
    blank = with_weights(pipe, {})  # the network itself may be spread over processes
    accelerator = build_accelerator(args, parts_rest=args.critic_steps > 1)

    def export(weights: Weights) -> None:
        card = model_card(args.output_dir, sys.argv, _ABOUT, _TAGS)
        write_pipeline(with_weights(blank, weights), args.output_dir / "pipeline", card)

    rates = {}
    if args.critic_learning_rate is not None:
        rates["critic"] = args.critic_learning_rate
    scans = None

    def validate(step: int, weights: Weights) -> None:
        nonlocal scans
        scans = scans or UndersampledScans(args.validation_scans, max(args.resolution), sampling)
        picture = args.output_dir / f"validation-{step}.png"
        scores = scans.validate(with_weights(blank, weights).to(accelerator.device), picture)
        log_validation(accelerator, args.output_dir, step, scores, picture)

    train(
        args,
        accelerator,
        model.train(),
        samples,
        export=export,
        validate=validate if args.validation_scans else None,
        clip_apart=("critic",),
        rates=rates,
    )


if __name__ == "__main__":
    run_script(main)
