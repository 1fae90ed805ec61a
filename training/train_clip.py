"""Train a small CLIP on pairs of phantom image and prompt; its text half conditions the prior.

    accelerate launch training/train_clip.py --bank runs/bank.npz --output_dir runs/clip \
        --train_batch_size 256 --max_train_steps 1500 --mixed_precision bf16

The network learns which prompt belongs to which image, and a linear read-out of TR, TE, TI, flip
angle, slice and field strength keeps the numbers in the embedding. Prompts come with fields
missing and in free order, and TR, TE and TI vary around those of real protocols.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.phantom import AnatomyBank, PhantomSlices
from ctxrecon.priors.factory import build_clip
from ctxrecon.priors.tokenizer import build_tokenizer, forget_padding
from ctxrecon.training import (
    TrainingParser,
    add_training_arguments,
    build_accelerator,
    check_run,
    parse_training_args,
    run_script,
    train,
    vary_metadata,
)
from ctxrecon.training.arguments import number, resolution
from ctxrecon.training.contrastive import ContrastiveLoss, readout_targets
from ctxrecon.training.folders import folder_beside
from ctxrecon.training.log import log_validation
from ctxrecon.training.loop import Weights

_VALIDATION_NUMBER = 2**30  # far from the numbers of training samples
_PATCH = 16
"""Side of the patches that the vision transformer sees."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = TrainingParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=Path, required=True, help="from training/build_bank.py")
    parser.add_argument("--resolution", type=resolution, default=96)
    parser.add_argument("--readout_weight", type=number(0, 1e9), default=1.0)
    add_training_arguments(parser, learning_rate=1e-3)
    return parse_training_args(parser, argv)


@dataclass(frozen=True)
class Pairs:
    """Magnitude image, prompt and the numbers that it tells, by the sample's number."""

    slices: PhantomSlices
    tokenizer: Any

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, str, Tensor]:
        number = place[1]
        item = self.slices[number]
        generator = torch.Generator().manual_seed(self.slices.seed * 2**40 + number)
        prompt, told = vary_metadata(item["metadata"], generator)
        magnitude = torch.linalg.vector_norm(item["image"], dim=0, keepdim=True)
        return magnitude, prompt, readout_targets([told])[0]

    def collate(self, samples: list[tuple[Tensor, str, Tensor]]) -> dict[str, Tensor]:
        """Stacked, with tokens."""
        images, prompts, numbers = zip(*samples, strict=True)
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, return_tensors="pt"
        )
        return {
            "pixels": torch.stack(images),
            "tokens": tokens.input_ids,
            "numbers": torch.stack(numbers),
        }


@torch.no_grad()
def retrieval(model: ContrastiveLoss, batch: dict[str, Tensor]) -> dict[str, float]:
    """How often the nearest prompt is the image's own, the nearest image the prompt's own.

    An equal prompt is as good as the own one.
    """
    output = model.clip(input_ids=batch["tokens"], pixel_values=batch["pixels"])
    similarity = output.image_embeds @ output.text_embeds.T
    same = (batch["tokens"][:, None] == batch["tokens"][None]).all(dim=-1)
    rows = torch.arange(len(same), device=same.device)
    return {
        "image_to_prompt": same[rows, similarity.argmax(dim=1)].float().mean().item(),
        "prompt_to_image": same[rows, similarity.argmax(dim=0)].float().mean().item(),
        "loss": model(batch).item(),
    }


def main(argv: list[str] | None = None) -> None:
    """Data, model, loop."""
    args = parse_args(argv)
    if args.resolution % _PATCH:
        raise InputError(f"--resolution {args.resolution}: expected a multiple of {_PATCH}")
    check_run(args)
    accelerator = build_accelerator(args)
    tokenizer = build_tokenizer()
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}

    def build() -> ContrastiveLoss:
        clip = build_clip(
            len(tokenizer), image_size=args.resolution, patch_size=_PATCH, seed=args.seed, **special
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(args.seed)
            return ContrastiveLoss(clip, args.readout_weight)

    slices = PhantomSlices(
        AnatomyBank.load(args.bank),
        resolution=args.resolution,
        seed=args.seed,
        varied_times=0.5,
    )
    pairs = Pairs(slices, tokenizer)

    def average(weights: Weights) -> ContrastiveLoss:
        model = build().eval()
        model.load_state_dict(weights)
        return model

    def export(weights: Weights) -> None:
        clip = average(weights).clip
        with folder_beside(args.output_dir / "clip") as beside:
            clip.save_pretrained(beside)
            clip.text_model.save_pretrained(beside / "text_encoder")
            forget_padding(tokenizer)
            tokenizer.save_pretrained(beside / "tokenizer")

    held_out = pairs.collate([pairs[0, _VALIDATION_NUMBER + k] for k in range(256)])

    def validate(step: int, weights: Weights) -> None:
        log_validation(accelerator, args.output_dir, step, retrieval(average(weights), held_out))

    train(args, accelerator, build(), pairs, export=export, validate=validate)


if __name__ == "__main__":
    run_script(main)
