r"""Train a small CLIP on pairs of phantom image and prompt; its text encoder conditions the prior.

    accelerate launch training/train_clip.py --bank runs/bank.npz --output_dir runs/clip \
        --train_batch_size 256 --max_train_steps 1500 --mixed_precision bf16

The network learns which prompt belongs to which image. A linear readout of TR, TE, TI, flip angle,
slice and field strength preserves these values in the embedding. Prompts have missing fields and
random order, and TR, TE and TI vary around those of real protocols.
"""

from __future__ import annotations

from accelerate import Accelerator

from ctxrecon.errors import InputError
from ctxrecon.phantom import AnatomyBank, PhantomSlices
from ctxrecon.priors.tokenizer import build_tokenizer, forget_padding
from ctxrecon.training.clip.build import build
from ctxrecon.training.clip.config import PATCH, ClipConfig
from ctxrecon.training.clip.data import Pairs
from ctxrecon.training.clip.objective import ContrastiveLoss
from ctxrecon.training.clip.validation import retrieval
from ctxrecon.training.folders import folder_beside
from ctxrecon.training.log import log_validation
from ctxrecon.training.loop import Weights, build_accelerator, train
from ctxrecon.training.parser import TrainingCommand
from ctxrecon.training.run_folder import check_run

_HELD_OUT_NUMBER, _HELD_OUT_PAIRS = 2**30, 256
"""Numbers of the held-out pairs, far from those of training samples."""


class TrainedClip:
    """Export and validation callbacks of the training loop.

    Args:
        config: Configuration of the run.
        accelerator: Accelerator of the run.
        pairs: Pairs of image and prompt to validate on.
    """

    def __init__(self, config: ClipConfig, accelerator: Accelerator, pairs: Pairs) -> None:
        self.config, self.accelerator, self.tokenizer = config, accelerator, pairs.tokenizer
        numbers = range(_HELD_OUT_NUMBER, _HELD_OUT_NUMBER + _HELD_OUT_PAIRS)
        self.held_out = pairs.collate([pairs[0, number] for number in numbers])

    def export(self, weights: Weights) -> None:
        """Write the CLIP and, separately, its text encoder and tokenizer, atomically."""
        clip = self._with_weights(weights).clip
        with folder_beside(self.config.output_dir / "clip") as beside:
            clip.save_pretrained(beside)
            clip.text_model.save_pretrained(beside / "text_encoder")
            forget_padding(self.tokenizer)
            self.tokenizer.save_pretrained(beside / "tokenizer")

    def validate(self, step: int, weights: Weights) -> None:
        """Log the retrieval accuracy of held-out images and prompts."""
        scores = retrieval(self._with_weights(weights), self.held_out)
        log_validation(self.accelerator, self.config.output_dir, step, scores)

    def _with_weights(self, weights: Weights) -> ContrastiveLoss:
        model = build(self.config, self.tokenizer).eval()
        model.load_state_dict(weights)
        return model


def train_clip(config: ClipConfig) -> None:
    """Train a CLIP with the given configuration, or resume a run.

    Raises:
        InputError: If the data do not match, or the output folder cannot be used.
    """
    if config.resolution % PATCH:
        raise InputError(f"--resolution {config.resolution}: expected a multiple of {PATCH}")
    check_run(config)
    accelerator = build_accelerator(config)
    tokenizer = build_tokenizer()
    slices = PhantomSlices(
        AnatomyBank.load(config.bank),
        resolution=config.resolution,
        seed=config.seed,
        varied_times=0.5,
    )
    pairs = Pairs(slices, tokenizer)
    trained = TrainedClip(config, accelerator, pairs)
    train(
        config,
        accelerator,
        build(config, tokenizer).train(),
        pairs,
        export=trained.export,
        validate=trained.validate,
    )


_COMMAND = TrainingCommand(ClipConfig, train_clip, description=__doc__)
parse_args, main = _COMMAND.parse_args, _COMMAND.main
