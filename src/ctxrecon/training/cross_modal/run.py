r"""Train a network that a fully sampled scan of another contrast helps to reconstruct.

    accelerate launch training/train_cross_modal.py --network small --bank runs/brains.npz \
        --output_dir runs/cross --max_train_steps 2000 --masks random1d --accelerations 16

    ... --guidance none          # as printed: the reference does not enter the reconstruction
    ... --network small:alignment=false:passes=1 --guidance aligned   # raw reference as channels
    ... --order registration     # the displacement alone, of which another run starts by
    ... --aligner runs/registration/pipeline
    ... --order joint --alignment_weight 0 --synthesis_weight 0 --paired_weight 3000 # no critics

References are T1 and images T2 of the phantom's brains (``--bank``), who move between the two scans
as ``--rotation``, ``--translation`` and ``--elastic`` say; coils, noise and masks are simulated.
Everything about a sample follows from the seed and its number, so a run that is resumed goes on as
if it had not stopped.
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
    """Train a cross-modal network as configured; a stopped run goes on where it is asked to.

    Raises:
        InputError: options that do not belong together, data or parts that do not fit, or a folder
            that cannot take the run.
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
    misalignment = Misalignment(config.rotation, config.translation, config.elastic)
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
    """A new network to train.

    Raises:
        InputError: options that make none, or a text encoder that cannot be loaded.
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
            f"--order {REGISTRATION} trains the aligner, which the network has not: leave "
            "alignment=false out of --network"
        )
    if config.aligner is not None:
        _start_aligner(network, config.aligner)
    return CrossModalPipeline(network, encoder, tokenizer)


def _start_aligner(network: CrossModal, path: str) -> None:
    """Copy the weights of a trained aligner into that of a network.

    Raises:
        InputError: The pipeline cannot be loaded, or one of the two networks has no aligner, or
            they differ in size.
    """
    old = load_cross_modal(path).reconstructor
    sizes = [(one.config.align_width, one.config.align_depth) for one in (network, old)]
    if network.aligner is None or old.aligner is None:
        raise InputError(
            f"expected --aligner for a network with an aligner, from a pipeline that has one, got "
            f"{path}: leave alignment=false out of --network, or leave --aligner out"
        )
    if sizes[0] != sizes[1]:
        raise InputError(
            "expected an --aligner of align_width and align_depth "
            f"{sizes[0]}, got {sizes[1]} in {path}: give --network the same"
        )
    network.aligner.load_state_dict(old.aligner.state_dict())


_COMMAND = TrainingCommand(CrossModalConfig, train_cross_modal, description=__doc__)
parse_args, main = _COMMAND.parse_args, _COMMAND.main
