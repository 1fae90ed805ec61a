"""How much a text encoder knows about a scan: numbers, words, images, missing fields, word order.

    python -m benchmarks.text_encoder --bank runs/bank.npz --clip runs/clip/clip

Prompts are those of held-out protocols whose TR, TE and TI vary (``vary_times``), so that numbers
have to be read and cannot be known by heart. A ridge regression reads TR, TE, TI and flip angle
(their logarithms) and the slice from the state at the end of the prompt; the contrast is read by a
ridge regression to its indicator. The maps are fitted to complete prompts in the usual order and
tried on other complete prompts, on prompts in random order, and on prompts with no MR parameter
but the one that is read. Compared: an untrained encoder of the same size, one trained
jointly with the prior (``--prior``, the shipped one by default), and that of a CLIP (``--clip``),
for which retrieval in both directions among held-out pairs is measured too.
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
_FIRST = 2**31 - 2**24  # sample numbers that no training reaches
_HELD_OUT_SEED = 10**9
_RIDGE = 1e-3

Embed = Callable[[Sequence[str]], Tensor]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = study_parser("text_encoder", __doc__)
    parser.add_argument("--bank", type=Path, required=True, help="anatomies for the images")
    parser.add_argument("--clip", type=Path, required=True, help="from training/train_clip.py")
    parser.add_argument("--prior", help="whose encoder was trained jointly; the shipped one")
    parser.add_argument("--output_dir", type=Path, default=RESULTS)
    parser.add_argument("--prompts", type=int, default=4000, help="to fit the read-outs to")
    parser.add_argument("--test_prompts", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=256, help="for the retrieval")
    parser.add_argument("--seed", type=int, default=0)
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
    """Metadata of slices whose TR, TE and TI occur in no real protocol."""
    generator = torch.Generator().manual_seed(_HELD_OUT_SEED + seed)
    found = []
    for _ in range(count):
        anatomy = bank[int(torch.randint(len(bank), (), generator=generator))]
        protocol = vary_times(draw_protocol(generator, anatomy=anatomy.name), generator)
        found.append(describe(anatomy, protocol))
    return found


def embedding(encoder: Any, tokenizer: Any) -> Embed:
    """States at the end of prompts, ``(prompts, width)``."""

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
    """R² of the numbers and accuracy of the contrast, for each way of writing the test prompts."""
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
    # Without any MR parameter, as for the slice.
    result["one MR parameter only"]["contrast"] = contrast(lone["slice"])
    return result


def alone(metadata: list[ScanMetadata], name: str) -> list[str]:
    """Prompts with ``name`` as the only MR parameter."""
    others = [other for other in MR_PARAMETERS if other != name]
    return [without(item, *others).to_prompt() for item in metadata]


def design(states: Tensor) -> NDArray[np.float64]:
    """Rows with a constant."""
    values = states.double().numpy()
    return np.concatenate([values, np.ones((len(values), 1))], axis=1)


def ridge(features: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of a ridge regression, its penalty relative to the features' mean power."""
    gram = features.T @ features
    penalty = _RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    return np.linalg.solve(gram + penalty, features.T @ targets)


def r_squared(predicted: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Share of the variance of the known targets that is explained; negative is worse than none."""
    known = np.isfinite(target)
    error = ((predicted[known] - target[known]) ** 2).sum()
    return float(1 - error / ((target[known] - target[known].mean()) ** 2).sum())


@torch.no_grad()
def retrieval(folder: Path, bank: AnatomyBank, pairs: int, seed: int) -> dict[str, float]:
    """How often the nearest is the own one, or one with an equal prompt, among held-out pairs."""
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
    """What is read from the embeddings, and what is found by them."""
    args = parse_args(recorded_options(record["command"]))
    scores, found = record["results"]["read_out"], record["results"]["retrieval"]
    columns = (*NUMBERS, "contrast")
    text = [
        "# What the text encoders know\n",
        f"R² of log TR, log TE, log TI, log flip angle and slice, accuracy of the contrast, read "
        f"linearly from the state at the end of the prompt; fitted to {args.prompts} complete "
        f"prompts, tried on {args.test_prompts} others of protocols with random times.\n",
        table(
            ["encoder", "prompts", *columns],
            [
                [name, wording, *(f"{row[c]:.3f}" if c in row else "" for c in columns)]
                for name, rows in scores.items()
                for wording, row in rows.items()
            ],
        ),
        f"Retrieval among {found['pairs']} held-out pairs with {found['distinct_prompts']} "
        "distinct prompts (an equal prompt counts):\n",
        table(
            ["", "first", "among five"],
            [
                [label, *(f"{found[f'{key}_{rank}']:.3f}" for rank in ("top1", "top5"))]
                for key, label in (
                    ("image_to_prompt", "image → prompt"),
                    ("prompt_to_image", "prompt → image"),
                )
            ],
        ),
        f"Contrast of the nearest prompt right: {found['contrast_of_nearest_prompt']:.3f}\n",
    ]
    return "\n".join(text)


if __name__ == "__main__":
    main()
