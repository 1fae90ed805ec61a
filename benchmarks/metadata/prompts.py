"""Page sections on wrong prompts and on images drawn from prompts alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.common.paired import interval, paired, roc_area, share_higher, with_interval
from benchmarks.metadata.edits import WRONG_CONTRAST, WRONG_TIMES
from benchmarks.metadata.ladders import ladder
from benchmarks.metadata.measured import Measured
from benchmarks.metadata.plan import ABLATION_MASK, Experiment
from benchmarks.metadata.sections import Section, scores
from benchmarks.metadata.text_to_image import CONTRASTS, GROUP, PHANTOM, confusion, distance_table
from ctxrecon.evaluation import Row, table


def wrong_prompt(
    measured: Measured, experiment: Experiment, numbers: list[int], fixed: float
) -> Section:
    """Return the section on the cost of wrong prompts and their detection."""
    section = ladder(measured, experiment, numbers, fixed)
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
        "Difference of the wrong from the right prompt, in PSNR and in the data residual or the "
        "posterior spread. The ROC area uses one threshold for all slices; the last column is the "
        "share of slices whose value is higher with the wrong prompt. Chance is 0.5 for both.\n",
        table(
            ["wrong part, value", "PSNR (dB)", "value with the right prompt", "difference"]
            + ["ROC area", "higher when wrong"],
            rows,
        ),
    ]
    return section


def text_to_image(rows: list[Row], methods: list[str], count: int) -> Section | None:
    """Return the section on the nearest contrast of drawn images, ``None`` for too few images."""
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
            f"Confusion matrix of “{method}”: prompts in rows, nearest contrast in columns, "
            f"counted in groups of {GROUP} images:\n",
            table(
                ["prompt", *CONTRASTS],
                [[name, *map(str, row)] for name, row in zip(CONTRASTS, matrix, strict=True)],
            ),
        ]
    section.text.insert(
        0,
        table(
            ["images", "accuracy", "distance to own contrast", "distance to others − own"],
            summary_rows,
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
