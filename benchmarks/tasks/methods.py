"""Methods of the segmentation tables and their training stages."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common.training import slug, train_run


@dataclass(frozen=True)
class Stage:
    """One training run.

    Attributes:
        name: Name of its folder, shared by methods that share a stage.
        options: Options of the training script; ``{ratios}`` is replaced by the range of ratios.
        after: Stage that it continues from.
        samples: Learns from measurements, with one run for each acceleration.
        unets: Trains U-Nets, which have a separate learning rate.
    """

    name: str
    options: tuple[str, ...]
    after: Stage | None = None
    samples: bool = True
    unets: bool = False


@dataclass(frozen=True)
class Method:
    """One method of the segmentation tables.

    Attributes:
        title: Name in the tables.
        stage: Last training stage.
        amortized: One model serves every acceleration.
        deterministic: All samples are identical.
        published: Published values at each acceleration, by table of the paper.
    """

    title: str
    stage: Stage
    amortized: bool = False
    deterministic: bool = True
    published: dict[str, tuple[str, ...]] = field(default_factory=dict)


_IMAGES = ("--network", "{unets}", "--aim", "reconstruction")
_FIXED, _LOUPE = ("--sampler", "variable_density2d"), ("--sampler", "loupe:lines=false")
_TASK = ("--aim", "task")
_RECONSTRUCTION = ("--freeze", "sampler", "reconstruction")

_FIXED_IMAGES = Stage("images_variable_density", (*_FIXED, *_IMAGES), unets=True)
_LOUPE_IMAGES = Stage("images_loupe", (*_LOUPE, *_IMAGES), unets=True)
_LABELS = Stage("labels", ("--network", "{li_net}", "--aim", "labels"), samples=False)
_LOUPE_LABELS = Stage("labels_loupe", ("--network", "{li_net}", "--aim", "labels"), _LOUPE_IMAGES)
_GENERATOR = ("--sampler", "pattern_generator:lines=false:embedding=1:width=16:ratios={ratios}")


def info_mri(name: str, *options: str) -> Stage:
    """Return the stage of InfoMRI with further options and this folder name."""
    return Stage(name, (*_GENERATOR, "--network", "{latent}", *options))


INFO = Method(
    "InfoMRI", info_mri("infomri"), amortized=True, deterministic=False,
    published={
        "segmentation": (".0987 / .9496", ".1009 / .9474", ".1086 / .9441", ".1142 / .9429"),
        "calibration": (".0098 / .0275", ".0127 / .0290", ".0150 / .0310", ".0140 / .0316"),
    },
)  # fmt: skip
METHODS = (
    Method(
        "TradPat-UNet-RS",
        Stage("tradpat_rs", (*_TASK, *_RECONSTRUCTION), _FIXED_IMAGES, unets=True),
        published={
            "segmentation": (".1573 / .9474", ".2324 / .9171", ".2801 / .9047", ".3008 / .8979"),
        },
    ),
    Method(
        "LI-Net", Stage("li_net", (*_FIXED, *_TASK), _LABELS),
        published={
            "segmentation": (".1318 / .9544", ".1585 / .9466", ".2458 / .9150", ".2161 / .9260"),
            "calibration": (".0228 / .0266", ".0298 / .0337", ".0462 / .0499", ".0415 / .0459"),
        },
    ),
    Method(
        "LOUPE-UNet-RS", Stage("loupe_rs", (*_TASK, *_RECONSTRUCTION), _LOUPE_IMAGES, unets=True),
        published={
            "segmentation": (".1404 / .9516", ".2145 / .9251", ".3054 / .8802", ".3458 / .8696"),
        },
    ),
    Method(
        "LOUPE-LI-Net", Stage("loupe_li_net", (*_TASK, "--freeze", "sampler"), _LOUPE_LABELS),
        published={
            "segmentation": (".1215 / .9559", ".1368 / .9503", ".1643 / .9428", ".2306 / .9210"),
            "calibration": (".0299 / .0299", ".0319 / .0319", ".0407 / .0407", ".0532 / .0532"),
        },
    ),
    Method(
        "SemuNet", Stage("semunet", (*_LOUPE, "--network", "{unets}"), unets=True),
        published={
            "segmentation": (".1166 / .9606", ".1296 / .9556", ".2244 / .9223", ".2549 / .9131"),
        },
    ),
    Method(
        "Tackle", Stage("tackle", _TASK, _LOUPE_IMAGES, unets=True),
        published={
            "segmentation": (".1009 / .9644", ".1243 / .9570", ".1683 / .9404", ".2216 / .9243"),
            "calibration": (".0081 / .0176", ".0148 / .0255", ".0251 / .0309", ".0330 / .0421"),
        },
    ),
    Method(
        "InfoMRI, no latent",
        Stage("no_latent", (*_GENERATOR, "--network", "{latent}:deterministic=true")),
        amortized=True,
    ),
    INFO,
)  # fmt: skip


def trained(
    stage: Stage, acceleration: float | None, seed: int, args: argparse.Namespace
) -> Path | None:
    """Train a stage after the stages before it.

    Args:
        stage: Stage to train.
        acceleration: Acceleration of training; ``None`` for a range.
        seed: Random seed of the training.
        args: Options of the study.

    Returns:
        Folder of the pipeline, or ``None`` if the stage is not trained yet.
    """
    before = None
    if stage.after is not None:
        before = trained(stage.after, acceleration, seed, args)
        if before is None:
            return None
    single = stage.samples and acceleration is not None
    suffix = f"_x{acceleration:.3g}" if single else ""
    folder = args.runs / f"{slug(f'{args.target} {stage.name}')}{suffix}_s{seed}"
    options = ["--target", args.target, *_filled(stage.options, args)]
    if before is not None:
        options += ["--pretrained_model_name_or_path", str(before)]
    if "--sampler" in options and single:
        options += ["--acceleration", f"{acceleration:g}"]
    rate = args.unets_learning_rate if stage.unets else args.learning_rate
    # A model for all ratios trains as many steps per ratio as a model for one.
    steps = args.steps * (len(args.accelerations) if acceleration is None else 1)
    options += ["--seed", str(seed), "--learning_rate", str(rate), *common_options(args, steps)]
    if train_run("train_task.py", options, folder, steps, test_only=args.test_only):
        return folder / "pipeline"
    return None


def common_options(args: argparse.Namespace, steps: int) -> list[str]:
    """Return the options shared by all trainings of the study, for a number of steps."""
    options = ["--bank", str(args.bank), "--resolution", str(args.resolution)]
    options += ["--field_of_view", f"{args.field_of_view:g}", "--snr", f"{args.snr:g}"]
    options += ["--scans", str(args.scans), "--train_batch_size", str(args.batch_size)]
    options += ["--rater_spread", f"{args.rater_spread:g}"]
    options += ["--latent_warmup_steps", str(steps // 2)]
    options += ["--lr_warmup_steps", "50"]
    options += ["--ema_decay", str(args.ema_decay), "--mixed_precision", args.mixed_precision]
    options += ["--validation_scans", "0", "--checkpointing_steps", str(args.checkpointing_steps)]
    options += ["--checkpoints_total_limit", "1", "--report_to", "none"]
    if args.contrast:
        options += ["--contrast", args.contrast]
    return options


def _filled(options: Sequence[str], args: argparse.Namespace) -> list[str]:
    """Replace placeholders in the options by the sizes of the study."""
    ends = (1 / max(args.accelerations), 1 / min(args.accelerations))
    names = {
        "{latent}": args.latent_network,
        "{unets}": args.unets,
        "{li_net}": args.li_net,
        "{ratios}": f"[{ends[0]:.6g},{ends[1]:.6g}]",
    }
    filled = []
    for text in options:
        for name, value in names.items():
            text = text.replace(name, value)
        filled.append(text)
    return filled
