"""Findings of knees against what attackers see: Table V of InfoMRI in kind, and its frontier."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common.record import Record
from benchmarks.tasks.frontier_figures import draw_frontier, draw_images
from benchmarks.tasks.knees import (
    ATTACKERS,
    OTHERS,
    SNR,
    UNIFORM,
    KneeEntry,
    Knees,
    attack_by_network,
    attack_by_prior,
    draw_knees,
    generator_entry,
    masks_of,
    read_findings,
    trained_attacker,
    trained_task,
)
from benchmarks.tasks.privacy import Estimate, choose_weight, estimate, mean_of
from benchmarks.tasks.privacy_page import shown
from ctxrecon.errors import InputError
from ctxrecon.evaluation import table
from ctxrecon.metrics import auroc, macro_auroc, psnr
from ctxrecon.pipelines import TaskPipeline, load_prior, load_reconstructor, load_task
from ctxrecon.tasks import FINDINGS

PRIOR = "diffusion prior"
TOLERANCE = 0.01
"""Mean AUROC that a suppression may cost where its weight is chosen."""
_VALIDATION = 100
"""Seed of the people that weights are chosen by, added to that of the test."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of both tables."""
    parser.add_argument("--knees", type=Path, help="bank of knees to train with")
    parser.add_argument("--knee_resolution", type=int, default=96)
    parser.add_argument("--knee_acceleration", type=float, default=8.0)
    parser.add_argument("--knee_scans", type=int, default=1500, help="to train with")
    parser.add_argument("--knee_steps", type=int, default=400)
    parser.add_argument("--attack_steps", type=int, default=100)
    parser.add_argument("--test_knees", type=int, default=300, help="half as many validate")
    parser.add_argument("--prior_knees", type=int, default=3, help="that the prior attacks")
    parser.add_argument(
        "--knee_weights",
        type=float,
        nargs="+",
        default=[0.0, 0.003, 0.01],
        help="|β|, two or more, 0 first",
    )
    parser.add_argument(
        "--attackers", nargs="+", choices=[*ATTACKERS, PRIOR], default=[*ATTACKERS, PRIOR]
    )


@dataclass
class Attacked:
    """What one sampler lets be found and seen of every knee.

    Attributes:
        entry: the sampler with its classifier.
        scores: ``(count, findings)`` probabilities.
        psnr: of each attacker by name, ``(count,)`` in dB; of the prior of the first knees.
        images: of each attacker by name, of the first knee, ``(n, n)`` complex64.
    """

    entry: KneeEntry
    scores: NDArray[np.float64]
    psnr: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    images: dict[str, Tensor] = field(default_factory=dict)


def privacy_knees(args: argparse.Namespace) -> dict[str, Any] | None:
    """Table V: every sampler, InfoMRI's without suppression and with the weight chosen."""
    found = _measure(OTHERS, args)
    if found is None:
        return None
    record, _, _ = found
    kept = (0.0, record["chosen"])
    record["rows"] = [row for row in record["rows"] if row["entropy_weight"] in kept]
    return record


def frontier(args: argparse.Namespace) -> dict[str, Any] | None:
    """Attack PSNR against AUROC over all weights, with uniform random masks; draws both figures."""
    found = _measure((UNIFORM,), args)
    if found is None:
        return None
    record, attacked, test = found
    draw_frontier(args.output_dir / "tasks_frontier.png", record["rows"])
    own = [one for one in attacked if one.entry.title.startswith("InfoMRI")]
    three = [own[0], own[len(own) // 2], own[-1]] if len(own) > 2 else own
    draw_images(
        args.output_dir / "tasks_frontier_images.png",
        {one.entry.title: one.images for one in three},
        test.images[0],
    )
    return record


def _measure(
    others: Sequence[KneeEntry], args: argparse.Namespace
) -> tuple[dict[str, Any], list[Attacked], Knees] | None:
    """Train and attack these samplers and InfoMRI's with every weight; then the record."""
    if args.knees is None:
        raise InputError("knees are trained with a bank: give --knees")
    if len(args.knee_weights) < 2 or args.knee_weights[0] != 0:
        raise InputError(
            f"expected --knee_weights with 0 first and another, got {args.knee_weights}"
        )
    weights = [generator_entry(weight) for weight in args.knee_weights]
    tasks: dict[str, Path] = {}
    networks: dict[tuple[str, str], Path] = {}
    for entry in (*others, *weights):
        task = trained_task(entry, args)
        if task is None:
            continue
        tasks[entry.title] = task
        for attacker in ATTACKERS:
            if attacker in args.attackers:
                network = trained_attacker(task, attacker, args)
                if network is not None:
                    networks[entry.title, attacker] = network
    entries = [entry for entry in (*others, *weights) if entry.title in tasks]
    chooses = args.attackers[0]
    known = [chooses == PRIOR or (entry.title, chooses) in networks for entry in weights]
    if args.train_only or not all(known) or not all(entry in entries for entry in weights):
        return None
    test = draw_knees(args.test_knees, args.knee_resolution, args.seed)
    validation = draw_knees(
        max(args.test_knees // 2, 1), args.knee_resolution, args.seed + _VALIDATION
    )
    pipes = {title: load_task(task) for title, task in tasks.items()}
    grid = [
        _validated(
            _attacked(entry, pipes[entry.title], validation, [chooses], networks, args),
            validation,
            chooses,
        )
        for entry in weights
    ]
    attacked = [
        _attacked(entry, pipes[entry.title], test, args.attackers, networks, args)
        for entry in entries
    ]
    plain = next(one for one in attacked if one.entry.title == weights[0].title)
    mean_image = validation.images.mean(dim=0).expand_as(test.images)
    record = {
        "snr": SNR,
        "resolution": args.knee_resolution,
        "acceleration": args.knee_acceleration,
        "steps": [args.knee_steps, args.attack_steps],
        "scans": args.knee_scans,
        "knees": [len(validation), len(test)],
        "positive": test.findings.sum(dim=0).tolist(),
        "mean_image": mean_of(psnr(mean_image, test.images)),
        "tolerance": TOLERANCE,
        "chosen_by": chooses,
        "chosen": choose_weight(grid, TOLERANCE),
        "grid": grid,
        "rows": [_row(one, plain, test) for one in attacked],
    }
    return record, attacked, test


def _seen(
    attacker: str,
    title: str,
    knees: Knees,
    masks: Tensor,
    networks: dict[tuple[str, str], Path],
    args: argparse.Namespace,
) -> Tensor | None:
    """What an attacker sees of the first knees; ``None`` where it is not trained."""
    if attacker == PRIOR:
        prior = load_prior()
        prior.set_progress_bar_config(disable=True)
        return attack_by_prior(prior, knees, masks, args.prior_knees, args.seed)
    if (title, attacker) not in networks:
        return None
    return attack_by_network(load_reconstructor(networks[title, attacker]), knees, masks)


def _attacked(
    entry: KneeEntry,
    pipe: TaskPipeline,
    knees: Knees,
    attackers: Sequence[str],
    networks: dict[tuple[str, str], Path],
    args: argparse.Namespace,
) -> Attacked:
    masks = masks_of(pipe, args.knee_acceleration, len(knees), args.seed)
    found = Attacked(entry, read_findings(pipe, knees, masks).double().numpy())
    for attacker in attackers:
        images = _seen(attacker, entry.title, knees, masks, networks, args)
        if images is not None:
            found.psnr[attacker] = psnr(images, knees.images[: len(images)]).double().numpy()
            found.images[attacker] = images[0]
    return found


def _validated(one: Attacked, knees: Knees, attacker: str) -> dict[str, float]:
    """What a weight is chosen by."""
    return {
        "entropy_weight": one.entry.entropy_weight,
        "task": macro_auroc(one.scores, knees.findings),
        "psnr": float(one.psnr[attacker].mean()),
    }


def _row(one: Attacked, plain: Attacked, knees: Knees) -> dict[str, Any]:
    """For the JSON file, with differences from InfoMRI's sampler that suppresses nothing."""
    truth, count = knees.findings.numpy(), len(knees)

    def area(scores: NDArray[np.float64], rows: NDArray[np.int64]) -> float:
        return macro_auroc(scores[rows], truth[rows])

    row: dict[str, Any] = {
        "title": one.entry.title,
        "entropy_weight": one.entry.entropy_weight,
        "auroc": estimate(lambda rows: area(one.scores, rows), count),
        "findings": {
            name: auroc(one.scores[:, place], truth[:, place])
            for place, name in enumerate(FINDINGS)
        },
        "psnr": {name: mean_of(values) for name, values in one.psnr.items()},
    }
    if one is not plain:
        row["less_plain"] = {
            "auroc": estimate(
                lambda rows: area(one.scores, rows) - area(plain.scores, rows), count
            ),
            "psnr": {name: mean_of(values - plain.psnr[name]) for name, values in one.psnr.items()},
        }
    return row


def page(record: Record) -> str:
    """What was found, of either table."""
    found = record["results"]
    is_frontier = found["table"] == "frontier"
    n, (validation, test) = found["resolution"], found["knees"]
    positive = ", ".join(
        f"{count} with {name}" for count, name in zip(found["positive"], FINDINGS, strict=True)
    )
    steps, attack_steps = found["steps"]
    text = [
        f"# Privacy: knees{', the frontier' if is_frontier else ''}\n",
        f"Magnitudes of phantom knees of {n}², one coil, SNR {found['snr']:g}, ×"
        f"{found['acceleration']:g}, single samples. Each sampler is trained with a ResNet-18 of a "
        f"quarter of the published width for {steps} steps of 16 out of {found['scans']} scans, "
        f"each trained attacker for {attack_steps} steps of 8 on the masks of the frozen sampler. "
        f"Tested on {test} people whom no bank holds ({positive}).\n",
        "AUROC: the mean over the findings. Attack: PSNR of the image; the diffusion prior is the "
        "shipped one with its default solver, on the first knees only. The mean image of other "
        f"people, for which nothing has to be measured, has {shown(found['mean_image'], 2)} dB. In "
        "brackets 95 % bootstrap intervals over the people; each was trained once. InfoMRI, "
        "Table V, in kind.\n",
        _scores(found["rows"]),
        "",
        "Less InfoMRI with β = 0, person by person:\n",
        _differences(found["rows"]),
        "",
        f"On {validation} other people β = {-found['chosen']:g} was chosen: of the weights that "
        f"cost at most {found['tolerance']:g} of AUROC the one with the lowest PSNR of the "
        f"{found['chosen_by']}, or, where all cost more, the one that costs least.\n",
        table(
            ["β", "AUROC", "attack (dB)"],
            [
                [f"{-one['entropy_weight'] or 0:g}", f"{one['task']:.3f}", f"{one['psnr']:.2f}"]
                for one in found["grid"]
            ],
        ),
        "",
    ]
    if is_frontier:
        text += [
            "![attack PSNR against AUROC](tasks_frontier.png)\n",
            "![images that attackers see](tasks_frontier_images.png)\n",
        ]
    return "\n".join(text)


def _scores(rows: Sequence[dict[str, Any]]) -> str:
    attackers = _attackers(rows)
    lines = [
        [
            row["title"],
            shown(row["auroc"], 3),
            *(f"{row['findings'][name]:.3f}" for name in FINDINGS),
            *_of_attackers(row["psnr"], attackers, ""),
        ]
        for row in rows
    ]
    return table(["", "AUROC", *FINDINGS, *(f"{name} (dB)" for name in attackers)], lines)


def _differences(rows: Sequence[dict[str, Any]]) -> str:
    attackers = _attackers(rows)
    lines = [
        [
            row["title"],
            shown(row["less_plain"]["auroc"], 3, "+"),
            *_of_attackers(row["less_plain"]["psnr"], attackers, "+"),
        ]
        for row in rows
        if "less_plain" in row
    ]
    return table(["", "AUROC", *(f"{name} (dB)" for name in attackers)], lines)


def _attackers(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["psnr"]))


def _of_attackers(psnrs: dict[str, Estimate], attackers: Sequence[str], sign: str) -> list[str]:
    return [shown(psnrs[name], 2, sign) if name in psnrs else "" for name in attackers]
