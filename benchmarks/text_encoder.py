"""Information in the embeddings of text encoders: numbers, contrast, images and word order.

    python -m benchmarks.text_encoder --bank runs/bank.npz --clip runs/clip/clip

Prompts describe held-out protocols with randomly varied TR, TE and TI (``vary_times``), so that
numbers must be read rather than memorized. Ridge regressions from the state at the end of the
prompt predict the logarithms of TR, TE, TI and flip angle, the slice, and an indicator of the
contrast. They are fitted to complete prompts in the usual order and tested on other complete
prompts, on prompts in random order, and on prompts whose only MR parameter is the predicted one.
The comparison includes an untrained encoder of the same size, one trained jointly with the prior
(``--prior``, the shipped one by default), and that of a CLIP (``--clip``), for which retrieval
among held-out pairs is also measured in both directions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm
from transformers import CLIPModel

from benchmarks.common.arguments import RESULTS, parse, recorded_options, study_parser
from benchmarks.common.record import Record, write_study
from benchmarks.common.words import listed
from ctxrecon.evaluation import table
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import AnatomyBank, PhantomSlices, describe, draw_protocol
from ctxrecon.phantom.protocols import vary_times
from ctxrecon.pipelines import load_prior, load_text_encoder
from ctxrecon.priors import build_text_encoder
from ctxrecon.training import shuffle_parts, without
from ctxrecon.training.clip import READOUT, readout_targets
from ctxrecon.training.prompts import MR_PARAMETERS

NUMBERS = ("tr", "te", "ti", "flip_angle", "slice")
_FIRST = 2**31 - 2**24  # beyond the sample numbers of any training
_HELD_OUT_SEED = 10**9
_RIDGE = 1e-3

Embed = Callable[[Sequence[str]], Tensor]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = study_parser("text_encoder", __doc__)
    add = parser.add_argument
    add("--bank", type=Path, required=True, help="Bank of anatomies for the images.")
    add("--clip", type=Path, required=True, help="Folder written by training/train_clip.py.")
    add("--prior", help="Checkpoint with a jointly trained encoder (default: the shipped prior).")
    add("--output_dir", type=Path, default=RESULTS, help="Folder of the results.")
    add("--prompts", type=int, default=4000, help="Prompts to fit the regressions to.")
    add("--test_prompts", type=int, default=2000, help="Test prompts.")
    add("--pairs", type=int, default=256, help="Pairs for the retrieval.")
    add("--seed", type=int, default=0, help="Random seed.")
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    bank = AnatomyBank.load(args.bank)
    metadata = held_out_metadata(bank, args.prompts + args.test_prompts, args.seed)
    encoder, tokenizer = load_text_encoder(args.clip)
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    joint = load_prior(args.prior)
    encoders = {
        "untrained": (build_text_encoder(len(tokenizer), seed=args.seed, **special), tokenizer),
        "trained with the prior": (joint.text_encoder, joint.tokenizer),
        "contrastive": (encoder, tokenizer),
    }
    scores = {
        name: read_out(embedding(*parts), metadata, args.prompts, args.seed)
        for name, parts in tqdm(encoders.items(), desc="encoders", unit="encoder")
    }
    found = retrieval(args.clip, bank, args.pairs, args.seed)
    results = {"read_out": scores, "retrieval": found}
    write_study(args.output_dir / "text_encoder.json", results, args, page)


def held_out_metadata(bank: AnatomyBank, count: int, seed: int) -> list[ScanMetadata]:
    """Draw metadata of slices whose TR, TE and TI occur in no real protocol."""
    generator = torch.Generator().manual_seed(_HELD_OUT_SEED + seed)
    found = []
    for _ in range(count):
        anatomy = bank[int(torch.randint(len(bank), (), generator=generator))]
        protocol = vary_times(draw_protocol(generator, anatomy=anatomy.name), generator)
        found.append(describe(anatomy, protocol))
    return found


def embedding(encoder: Any, tokenizer: Any) -> Embed:
    """Return a function that embeds prompts as end-of-prompt states ``(prompts, width)``."""

    @torch.no_grad()
    def embed(prompts: Sequence[str]) -> Tensor:
        parts = []
        for first in range(0, len(prompts), 256):
            tokens = tokenizer(
                list(prompts[first : first + 256]), padding="max_length", return_tensors="pt"
            )
            parts.append(encoder(tokens.input_ids).pooler_output)
        return torch.cat(parts)

    return embed


def read_out(
    embed: Embed, metadata: list[ScanMetadata], fitted: int, seed: int
) -> dict[str, dict[str, float]]:
    """Return R² of the numbers and accuracy of the contrast for each form of the test prompts."""
    fit, test = metadata[:fitted], metadata[fitted:]
    generator = torch.Generator().manual_seed(seed)
    shuffled = [shuffle_parts(item, generator) for item in test]
    features = design(embed([item.to_prompt() for item in fit]))
    contrasts = sorted({item.contrast or "" for item in metadata})
    labels = np.array([contrasts.index(item.contrast or "") for item in metadata])
    words = ridge(features, np.eye(len(contrasts))[labels[:fitted]])
    numbers = dict(zip(READOUT, readout_targets(metadata).numpy().T, strict=True))
    maps = {}
    for name in NUMBERS:
        known = np.isfinite(numbers[name][:fitted])
        maps[name] = ridge(features[known], numbers[name][:fitted][known])

    def contrast(values: NDArray[np.float64]) -> float:
        return float(((values @ words).argmax(axis=1) == labels[fitted:]).mean())

    def number(values: NDArray[np.float64], name: str) -> float:
        return r_squared(values @ maps[name], numbers[name][fitted:])

    result: dict[str, dict[str, float]] = {}
    for wording, prompts in (
        ("complete", [item.to_prompt() for item in test]),
        ("random order", shuffled),
    ):
        values = design(embed(prompts))
        result[wording] = {name: number(values, name) for name in NUMBERS}
        result[wording]["contrast"] = contrast(values)
    lone = {name: design(embed(alone(test, name))) for name in NUMBERS}
    result["one MR parameter only"] = {name: number(lone[name], name) for name in NUMBERS}
    # Prompts for the slice have no MR parameter.
    result["one MR parameter only"]["contrast"] = contrast(lone["slice"])
    return result


def alone(metadata: list[ScanMetadata], name: str) -> list[str]:
    """Return prompts with ``name`` as the only MR parameter."""
    others = [other for other in MR_PARAMETERS if other != name]
    return [without(item, *others).to_prompt() for item in metadata]


def design(states: Tensor) -> NDArray[np.float64]:
    """Return the design matrix with a constant column."""
    values = states.double().numpy()
    return np.concatenate([values, np.ones((len(values), 1))], axis=1)


def ridge(features: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit a ridge regression with a penalty relative to the features' mean power."""
    gram = features.T @ features
    penalty = _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    return np.linalg.solve(gram + penalty, features.T @ targets)


def r_squared(predicted: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Return the explained share of the variance of the known targets (negative: worse than 0)."""
    known = np.isfinite(target)
    error = ((predicted[known] - target[known]) ** 2).sum()
    return float(1 - error / ((target[known] - target[known].mean()) ** 2).sum())


@torch.no_grad()
def retrieval(folder: Path, bank: AnatomyBank, pairs: int, seed: int) -> dict[str, float]:
    """Measure how often the nearest match has an equal prompt, among held-out pairs."""
    clip: Any = CLIPModel.from_pretrained(folder).eval()
    _, tokenizer = load_text_encoder(folder)
    size = clip.config.vision_config.image_size
    slices = PhantomSlices(bank, resolution=size, seed=seed + 1)
    items: list[dict[str, Any]] = [slices[_FIRST + k] for k in range(pairs)]
    prompts = [item["metadata"].to_prompt() for item in items]
    pixels = torch.stack([torch.linalg.vector_norm(i["image"], dim=0, keepdim=True) for i in items])
    tokens = tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
    output = clip(input_ids=tokens, pixel_values=pixels)
    similarity = output.image_embeds @ output.text_embeds.T
    result: dict[str, float] = {"pairs": pairs, "distinct_prompts": len(set(prompts))}
    for name, scores in (("image_to_prompt", similarity), ("prompt_to_image", similarity.T)):
        order = scores.argsort(dim=1, descending=True)
        own = np.array(
            [[prompts[column] == prompts[row] for column in order[row]] for row in range(pairs)]
        )
        result[f"{name}_top1"] = float(own[:, 0].mean())
        result[f"{name}_top5"] = float(own[:, :5].any(axis=1).mean())
    result["contrast_of_nearest_prompt"] = float(
        np.mean(
            [
                items[best]["metadata"].contrast == items[row]["metadata"].contrast
                for row, best in enumerate(similarity.argmax(dim=1).tolist())
            ]
        )
    )
    return result


def page(record: Record) -> str:
    """Return the page: a verdict, the linear read-outs and the retrieval."""
    args = parse_args(recorded_options(record["command"]))
    scores, found = record["results"]["read_out"], record["results"]["retrieval"]
    columns = (*NUMBERS, "contrast")
    names = ("log TR", "log TE", "log TI", "log flip angle", "slice", "contrast")
    best: dict[str, list[str]] = {}
    for wording in next(iter(scores.values())):
        winner = max(scores, key=lambda name: _mean_r_squared(scores[name][wording]))
        best.setdefault(winner, []).append(wording)
    winners = [f"“{name}” for prompts of the form {listed(own)}" for name, own in best.items()]
    text = [
        "# Information in the text embeddings\n",
        f"Averaged over the numbers, the encoder with the highest R² is {listed(winners)}.\n",
        "The table shows R² of log TR, log TE, log TI, log flip angle and slice, and the accuracy "
        "of the contrast, predicted linearly from the state at the end of the prompt. The "
        f"regressions were fitted to {args.prompts} complete prompts and tested on "
        f"{args.test_prompts} others from protocols with random times. A negative R² is worse than "
        "predicting the mean.\n",
        table(
            ["encoder", "prompts", *names],
            [
                [name, wording, *(f"{row[c]:.3f}" if c in row else "" for c in columns)]
                for name, rows in scores.items()
                for wording, row in rows.items()
            ],
        ),
        "## Retrieval\n",
        f"Share of {found['pairs']} held-out pairs with {found['distinct_prompts']} distinct "
        "prompts whose match is the nearest or among the five nearest; an equal prompt counts as a "
        "match.\n",
        table(
            ["direction", "nearest", "among five"],
            [
                [label, *(f"{found[f'{key}_{rank}']:.3f}" for rank in ("top1", "top5"))]
                for key, label in (
                    ("image_to_prompt", "image → prompt"),
                    ("prompt_to_image", "prompt → image"),
                )
            ],
        ),
        f"The nearest prompt has the right contrast in {found['contrast_of_nearest_prompt']:.1%} "
        "of the images.\n",
    ]
    return "\n".join(text)


def _mean_r_squared(row: dict[str, float]) -> float:
    """Return the mean R² over the numbers."""
    return float(np.mean([row[name] for name in NUMBERS if name in row]))


if __name__ == "__main__":
    main()
