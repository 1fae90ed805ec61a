r"""Train a network that reconstructs with a fully sampled reference of another contrast.

    accelerate launch training/train_cross_modal.py --network small --bank runs/brains.npz \
        --output_dir runs/cross --max_train_steps 2000 --masks random1d --accelerations 16

    ... --guidance none          # as printed: the reference does not enter the reconstruction
    ... --network small:alignment=false:passes=1 --guidance aligned   # raw reference as channels
    ... --network small:passes=1 --guidance aligned   # aligned to the zero-filled image, one pass
    ... --order registration     # train the displacement only, and start from it
    ... --aligner runs/registration/pipeline
    ... --order joint --alignment_weight 0 --synthesis_weight 0 --paired_weight 3000 # no critics

References are T1 and images T2 of the phantom's brains (``--bank``), with motion between the two
scans by ``--rotation``, ``--translation`` and ``--elastic``, or a fraction of that down to
``--least_motion``; coils, noise and masks are simulated. Samples are determined by the seed and
their number, so that an interrupted run resumes exactly.
"""

from __future__ import annotations

import torch

from ctxrecon.errors import InputError
from ctxrecon.phantom import AnatomyBank, Misalignment, PhantomPairs
from ctxrecon.pipelines import CrossModalPipeline, load_cross_modal, load_text_encoder
from ctxrecon.reconstructors import CROSS_MODAL, CrossModal
from ctxrecon.training.card import About
from ctxrecon.training.cross_modal.config import CrossModalConfig
from ctxrecon.training.cross_modal.data import PairSamples
from ctxrecon.training.cross_modal.objective import (
    CRITICS,
    PARTS,
    REGISTRATION,
    Alternating,
    CrossModalTraining,
    Objective,
)
from ctxrecon.training.cross_modal.validation import UndersampledPairs
from ctxrecon.training.loop import build_accelerator, train
from ctxrecon.training.options import build_from_text
from ctxrecon.training.parser import TrainingCommand
from ctxrecon.training.reconstructor.data import Sampling
from ctxrecon.training.run_folder import check_run
from ctxrecon.training.trained import TrainedPipeline

_ABOUT = About(
    "A network that reconstructs undersampled MR k-space with a reference of another contrast",
    "Load it with `ctxrecon.pipelines.load_cross_modal(folder)`. Averaged weights.",
    ("MRI", "reconstruction", "k-space", "registration"),
)


def train_cross_modal(config: CrossModalConfig) -> None:
    """Train a cross-modal network with the given configuration, or resume a run.

    Raises:
        InputError: If options contradict each other, data or parts do not match, or the output
            folder cannot be used.
    """
    check_run(config)
    pipe = starting_point(config)
    objective = Objective(
        config.reconstruction_weight,
        config.alignment_weight,
        config.synthesis_weight,
        config.smoothness_weight,
        config.paired_weight,
        config.motion_weight,
        config.order,
        config.rounds,
        config.smooth_rounds,
    )
    model = CrossModalTraining(
        pipe,
        objective,
        critic_width=config.critic_width,
        critic_depth=config.critic_depth,
        seed=config.seed,
    )
    sampling = Sampling(
        config.masks,
        config.accelerations,
        config.center_fraction,
        num_coils=config.num_coils,
        snr=config.snr,
    )
    misalignment = Misalignment(
        config.rotation, config.translation, config.elastic, config.least_motion
    )
    pairs = PhantomPairs(
        AnatomyBank.load(config.bank).of_anatomy("brain"),
        misalignment,
        magnitude=config.magnitude,
        resolution=max(config.resolution),
        seed=config.seed,
    )
    samples = PairSamples(
        pairs, sampling, config.scans, config.resolution, pipe.tokenizer, config.seed
    )
    accelerator = build_accelerator(config, parts_rest=True)
    trained = TrainedPipeline(
        config,
        accelerator,
        pipe,
        _ABOUT,
        lambda: UndersampledPairs(
            config.validation_scans,
            max(config.resolution),
            sampling,
            misalignment,
            config.magnitude,
        ),
    )
    of_critics = config.critic_learning_rate
    rates = {
        part: config.learning_rate if of_critics is None or part not in CRITICS else of_critics
        for part in PARTS
    }
    train(
        config,
        accelerator,
        model.train(),
        samples,
        export=trained.export,
        validate=trained.validate if config.validation_scans else None,
        rates=rates,
        iterate=Alternating(objective.phases(), config.max_grad_norm),
    )


def starting_point(config: CrossModalConfig) -> CrossModalPipeline:
    """Return a new network to train.

    Raises:
        InputError: If the options are invalid, or the text encoder cannot be loaded.
    """
    encoder, tokenizer = None, None
    settled: dict[str, object] = {"guidance": config.guidance}
    if config.guidance == "none":
        settled["passes"] = 1
    if config.text_encoder:
        encoder, tokenizer = load_text_encoder(config.text_encoder)
        settled["text_width"] = encoder.config.hidden_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_from_text("--network", config.network, CROSS_MODAL, settled)
    if config.order == REGISTRATION and network.aligner is None:
        raise InputError(
            f"--order {REGISTRATION} trains the aligner, which this network does not have: omit "
            "alignment=false in --network"
        )
    if config.aligner is not None:
        _start_aligner(network, config.aligner)
    return CrossModalPipeline(network, encoder, tokenizer)


def _start_aligner(network: CrossModal, path: str) -> None:
    """Copy the weights of a trained aligner to a network.

    Raises:
        InputError: If the pipeline cannot be loaded, one of the networks has no aligner, or their
            sizes differ.
    """
    old = load_cross_modal(path).reconstructor
    sizes = [(one.config.align_width, one.config.align_depth) for one in (network, old)]
    if network.aligner is None or old.aligner is None:
        raise InputError(
            f"--aligner needs an aligner both in --network and in {path}: omit alignment=false in "
            "--network, or omit --aligner"
        )
    if sizes[0] != sizes[1]:
        raise InputError(
            "expected an --aligner with align_width and align_depth "
            f"{sizes[0]}, got {sizes[1]} in {path}: set the same in --network"
        )
    network.aligner.load_state_dict(old.aligner.state_dict())


_COMMAND = TrainingCommand(CrossModalConfig, train_cross_modal, description=__doc__)
parse_args, main = _COMMAND.parse_args, _COMMAND.main
