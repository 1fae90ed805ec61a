"""Tables and verdicts of the experiments on prompts, from their rows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.common.paired import above, interval, paired, roc_area, share_higher, with_interval
from benchmarks.metadata.edits import WRONG_CONTRAST, WRONG_TIMES
from benchmarks.metadata.experiments import ABLATION_MASK, Experiment, Measured
from benchmarks.metadata.sections import BOTH, Section, evidence_of, scores
from benchmarks.metadata.text_to_image import CONTRASTS, GROUP, PHANTOM, confusion, distance_table
from ctxrecon.evaluation import Row, table


def ladder(measured: Measured, experiment: Experiment, numbers: list[int]) -> Section:
    """Prompts from the best to none: PSNR, and paired differences to none and to the next one."""
    found = {
        name: scores(
            measured, [(pool, ABLATION_MASK) for pool in pools], experiment.methods, numbers
        )
        for name, pools in {
            **{pool.name: (pool,) for pool in experiment.pools},
            BOTH: experiment.pools,
        }.items()
    }
    methods = [method.name for method in experiment.methods]
    nexts = dict(pairwise(methods))
    results: dict[str, Any] = {"n": len(numbers)}
    for name, columns in found.items():
        results[name] = {
            method: {
                metric: {
                    "mean": float(columns[method][metric].mean()),
                    "less_none": paired(columns[method][metric], columns[methods[-1]][metric]),
                    **(
                        {"less_next": paired(columns[method][metric], columns[after][metric])}
                        if (after := nexts.get(method))
                        else {}
                    ),
                }
                for metric in columns[method]
            }
            for method in methods
        }
    rows = []
    for method in methods:
        entry = results[BOTH][method]["psnr"]
        rows.append(
            [
                method,
                *(f"{results[name][method]['psnr']['mean']:.2f}" for name in found),
                with_interval(entry["less_none"], 3) if method in nexts else "",
                *(
                    with_interval(results[pool.name][method]["psnr"]["less_none"], 3)
                    if method in nexts
                    else ""
                    for pool in experiment.pools
                ),
                with_interval(entry["less_next"], 3) if method in nexts else "",
                with_interval(results[BOTH][method]["ssim"]["less_none"], 4)
                if method in nexts
                else "",
            ]
        )
    header = ["", *(f"PSNR, {name}" for name in found), f"less none, {BOTH}"]
    header += [*(f"less none, {pool.name}" for pool in experiment.pools), f"less next, {BOTH}"]
    return Section(results, [table([*header, "SSIM less none"], rows)])


def removal(measured: Measured, experiment: Experiment, numbers: list[int]) -> Section:
    """Metadata taken away step by step; the paper's Figure 4."""
    section = ladder(measured, experiment, numbers)
    names = [method.name for method in experiment.methods]
    entries = section.results[BOTH]
    steps = [entries[name]["psnr"]["less_next"] for name in names[:-1]]
    section.claim(
        "PSNR falls in the paper's order as metadata is removed (all, − MR parameters, − contrast, "
        "− slice, none)",
        all(step["mean"] > 0 for step in steps),
        "steps "
        + ", ".join(f"{step['mean']:+.3f}" for step in steps)
        + f" dB; {sum(map(above, steps))} of {len(steps)} intervals clear of 0, "
        f"n = {steps[0]['n']}",
    )
    return section


def pathology(measured: Measured, experiment: Experiment, numbers: list[int]) -> Section:
    """The finding alone, right and wrong; the paper's Figure 6."""
    section = ladder(measured, experiment, numbers)
    _, right, wrong, _ = (method.name for method in experiment.methods)
    entries = section.results[BOTH]
    cost, gain = entries[right]["psnr"]["less_next"], entries[wrong]["psnr"]["less_none"]
    section.claim(
        "a wrong pathology lies between none and the right one",
        cost["mean"] > 0 and gain["mean"] > 0,
        f"right less wrong {evidence_of(cost, 'dB')}; wrong less none {evidence_of(gain, 'dB')}; "
        f"{above(cost) + above(gain)} of 2 intervals clear of 0",
    )
    return section


def field_strength(measured: Measured, experiment: Experiment, numbers: list[int]) -> Section:
    """1.5 T for 3 T and the other way round."""
    section = ladder(measured, experiment, numbers)
    cost = section.results[BOTH][experiment.methods[0].name]["psnr"]["less_next"]
    section.claim(
        "the right field strength is better than the wrong one",
        above(cost),
        evidence_of(cost, "dB"),
    )
    return section


def wrong_prompt(measured: Measured, experiment: Experiment, numbers: list[int]) -> Section:
    """What a wrong prompt costs, and how residual and spread tell it from the right one."""
    section = ladder(measured, experiment, numbers)
    cells = [(pool, ABLATION_MASK) for pool in experiment.pools]
    found = scores(
        measured, cells, experiment.methods, numbers, names=("psnr", "residual", "spread")
    )
    right = found[experiment.methods[0].name]
    rows = []
    section.results["telling"] = telling = {}
    for method in experiment.methods:
        if method.edit not in (WRONG_TIMES, WRONG_CONTRAST):
            continue
        wrong = found[method.name]
        entry: dict[str, Any] = {"psnr": paired(wrong["psnr"], right["psnr"])}
        telling[method.edit] = entry
        for name in ("residual", "spread"):
            entry[name] = {
                "right": float(right[name].mean()),
                "difference": paired(wrong[name], right[name]),
                "roc_area": roc_area(right[name], wrong[name]),
                "share_higher": share_higher(right[name], wrong[name]),
            }
            rows.append(
                [
                    f"{method.edit}, {name}",
                    with_interval(entry["psnr"], 3),
                    f"{entry[name]['right']:.5f}",
                    with_interval(entry[name]["difference"], 5),
                    f"{entry[name]['roc_area']:.3f}",
                    f"{entry[name]['share_higher']:.3f}",
                ]
            )
    section.text += [
        "Wrong less right prompt. ROC area: one threshold for all slices; the last column compares "
        "each slice with itself. 0.5 is chance for both.\n",
        table(
            ["", "PSNR (dB)", "of the right prompt", "difference", "ROC area", "higher when wrong"],
            rows,
        ),
    ]
    return section


def text_to_image(rows: list[Row], methods: list[str], count: int) -> Section | None:
    """Which contrast the images of each prompt are nearest to; ``None`` where there are too few."""
    distances, numbers = distance_table(rows, [PHANTOM, *methods], count)
    if len(numbers) < GROUP:
        return None
    section = Section({"n": len(numbers), "group": GROUP, "contrasts": list(CONTRASTS)})
    summary_rows = []
    for method, array in distances.items():
        matrix = confusion(array)
        own = np.einsum("cic->ci", array)
        margin = (array.sum(axis=2) - own) / (len(CONTRASTS) - 1) - own
        entry = {
            "confusion": matrix.tolist(),
            "accuracy": float(np.trace(matrix) / matrix.sum()),
            "others_less_own": interval(margin.ravel()),
        }
        section.results[method] = entry
        summary_rows.append(
            [
                method,
                f"{entry['accuracy']:.3f}",
                f"{own.mean():.4f}",
                with_interval(entry["others_less_own"], 4),
            ]
        )
        section.text += [
            f"{method}: rows are prompts, columns the nearest contrast, groups of {GROUP} images\n",
            table(
                ["", *CONTRASTS],
                [[name, *map(str, row)] for name, row in zip(CONTRASTS, matrix, strict=True)],
            ),
        ]
    section.text.insert(
        0,
        table(
            ["", "accuracy", "distance to own contrast", "other contrasts less own"], summary_rows
        ),
    )
    best, chance = methods[-1], section.results[methods[0]]["accuracy"]
    accuracy = section.results[best]["accuracy"]
    section.claim(
        f"images drawn from prompts ({best}) show their contrast more often than without prompt",
        accuracy > chance,
        f"{accuracy:.0%} against {chance:.0%} of groups; phantom images "
        f"{section.results[PHANTOM]['accuracy']:.0%}",
    )
    return section
