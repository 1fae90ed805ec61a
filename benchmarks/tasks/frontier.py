"""Classification of knee findings against attacks (InfoMRI, Table V), and their trade-off."""

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
from benchmarks.common.words import change
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
"""Loss of mean AUROC allowed when the weight of the suppression is chosen."""
_VALIDATION = 100
"""Offset from the test seed to the seed of the validation people."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of both tables."""
    add, attackers = parser.add_argument, [*ATTACKERS, PRIOR]
    add("--knees", type=Path, help="Bank of knees to train with.")
    add("--knee_resolution", type=int, default=96, help="Matrix size of the knees.")
    add("--knee_acceleration", type=float, default=8.0, help="Acceleration of the knees.")
    add("--knee_scans", type=int, default=1500, help="Training scans.")
    add("--knee_steps", type=int, default=400, help="Training steps of samplers.")
    add("--attack_steps", type=int, default=100, help="Training steps of attackers.")
    add("--test_knees", type=int, default=300, help="Test people; half as many for validation.")
    add("--prior_knees", type=int, default=3, help="Test people that the prior attacks.")
    add(
        "--knee_weights",
        type=float,
        nargs="+",
        default=[0.0, 0.003, 0.01],
        help="Weights |β|, two or more, 0 first.",
    )
    add("--attackers", nargs="+", choices=attackers, default=attackers, help="Attackers.")


@dataclass
class Attacked:
    """Classification and attack results of one sampler.

    Attributes:
        entry: Sampler with its classifier.
        scores: Probabilities of the findings, ``(count, findings)``.
        psnr: PSNR in dB by attacker, ``(count,)``; of the prior only for the first knees.
        images: Reconstruction of the first knee by attacker, ``(n, n)``, complex64.
    """

    entry: KneeEntry
    scores: NDArray[np.float64]
    psnr: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    images: dict[str, Tensor] = field(default_factory=dict)


def privacy_knees(args: argparse.Namespace) -> dict[str, Any] | None:
    """Measure every sampler, InfoMRI's without suppression and with the chosen weight."""
    found = _measure(OTHERS, args)
    if found is None:
        return None
    record, _, _ = found
    kept = (0.0, record["chosen"])
    record["rows"] = [row for row in record["rows"] if row["entropy_weight"] in kept]
    return record


def frontier(args: argparse.Namespace) -> dict[str, Any] | None:
    """Measure attack PSNR and AUROC for all weights and uniform random masks; draw both figures."""
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
    """Train and attack these samplers and InfoMRI's with every weight; return the record."""
    if args.knees is None:
        raise InputError("expected --knees, a bank of knees to train with")
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
    """Return an attacker's reconstructions, or ``None`` if it is not trained."""
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
    """Return the validation scores by which a weight is chosen."""
    return {
        "entropy_weight": one.entry.entropy_weight,
        "task": macro_auroc(one.scores, knees.findings),
        "psnr": float(one.psnr[attacker].mean()),
    }


def _row(one: Attacked, plain: Attacked, knees: Knees) -> dict[str, Any]:
    """Return a row of the record, with differences from InfoMRI's sampler without suppression."""
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
    """Return the page of either table: a verdict, the setting, scores and the choice of β."""
    found = record["results"]
    is_frontier = found["table"] == "frontier"
    n, (validation, test) = found["resolution"], found["knees"]
    positive = ", ".join(
        f"{name}: {count}" for count, name in zip(found["positive"], FINDINGS, strict=True)
    )
    steps, attack_steps = found["steps"]
    text = [
        f"# Privacy: knees{', the frontier' if is_frontier else ''}\n",
        _verdict(found),
        f"Magnitude images of phantom knees, {n}², one coil, SNR {found['snr']:g}, "
        f"×{found['acceleration']:g}, sampled as single points. Each sampler is trained with a "
        f"ResNet-18 of a quarter of the published width for {steps} steps of 16 on "
        f"{found['scans']} scans, each trained attacker for {attack_steps} steps of 8 on the masks "
        f"of the frozen sampler. The test set has {test} people outside the bank ({positive}).\n",
        "AUROC is the mean over the findings. Columns in dB show the PSNR of the image "
        "reconstructed by each attacker; the shipped diffusion prior with its default solver "
        "attacks only the first knees. The mean image of other people, which needs no measurement, "
        f"has {shown(found['mean_image'], 2)} dB. Brackets show 95 % bootstrap intervals over the "
        "people; every model was trained once. The table is an analogue of InfoMRI, Table V.\n",
        _scores(found["rows"]),
        "## Effect of the sampler\n",
        "Paired differences from InfoMRI with β = 0, person by person:\n",
        _differences(found["rows"]),
        "## Choice of β\n",
        f"On {validation} other people, β = {-found['chosen']:g} was chosen. Of the weights that "
        f"cost at most {found['tolerance']:g} of AUROC, the one with the lowest PSNR of the "
        f"attacker “{found['chosen_by']}” is chosen; if there is none, the one with the highest "
        "AUROC.\n",
        table(
            ["β", "AUROC", "attack (dB)"],
            [
                [f"{-one['entropy_weight'] or 0:g}", f"{one['task']:.3f}", f"{one['psnr']:.2f}"]
                for one in found["grid"]
            ],
        ),
    ]
    if is_frontier:
        text += [
            "![PSNR of the attack against AUROC](tasks_frontier.png)\n",
            "![Images reconstructed by the attackers](tasks_frontier_images.png)\n",
        ]
    return "\n".join(text)


def _verdict(found: dict[str, Any]) -> str:
    """Return what the chosen weight changes compared with no suppression, in words."""
    attacker = found["chosen_by"]
    for row in found["rows"]:
        less = row.get("less_plain")
        if less and row["entropy_weight"] == found["chosen"] and attacker in less["psnr"]:
            area = change(less["auroc"], 3, "", ("raises AUROC by", "lowers AUROC by"))
            verbs = (f"raises the PSNR of “{attacker}” by", f"lowers the PSNR of “{attacker}” by")
            seen = change(less["psnr"][attacker], 2, " dB", verbs)
            return (
                f"Compared with no suppression, the chosen β = {-found['chosen']:g} {area} and "
                f"{seen}.\n"
            )
    return ""


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
    return table(["sampler", "AUROC", *FINDINGS, *(f"{name} (dB)" for name in attackers)], lines)


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
    return table(["sampler", "AUROC", *(f"{name} (dB)" for name in attackers)], lines)


def _attackers(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["psnr"]))


def _of_attackers(psnrs: dict[str, Estimate], attackers: Sequence[str], sign: str) -> list[str]:
    return [shown(psnrs[name], 2, sign) if name in psnrs else "" for name in attackers]
