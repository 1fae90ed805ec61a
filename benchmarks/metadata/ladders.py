"""Page sections on prompts from complete to none: PSNR at every γ and the cost of each step."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from benchmarks.common.paired import above, paired, with_interval
from benchmarks.metadata.edits import (
    ALL,
    ALL_WRONG_PATHOLOGY,
    NO_DEMOGRAPHICS,
    NO_PARAMETERS,
    PATHOLOGY,
    WRONG_FIELD,
    WRONG_PATHOLOGY,
)
from benchmarks.metadata.measured import Measured
from benchmarks.metadata.plan import Condition, Experiment, Pool
from benchmarks.metadata.sections import BOTH, Scores, Section, evidence_of, scores
from ctxrecon.evaluation import table

_MOST_FINDINGS = 4
"""Number of the most frequent findings of each anatomy that are shown, as in the paper."""
_LEAST_SLICES = 4
"""Smallest number of slices with a finding."""


def ladder(measured: Measured, experiment: Experiment, numbers: list[int], fixed: float) -> Section:
    """Return a section of paired PSNR differences from no prompt and from the next prompt.

    Args:
        measured: Rows of the study.
        experiment: Experiment whose last method has no prompt.
        numbers: Scans of each pool.
        fixed: Guidance scale γ shown in full; the lowest measured one if it was not measured.
    """
    groups = {pool.name: (pool,) for pool in experiment.pools} | {BOTH: experiment.pools}
    section = Section({"n": len(numbers)})
    for mask in experiment.masks:
        found = {
            name: scores(measured, [(pool, mask) for pool in pools], experiment.methods, numbers)
            for name, pools in groups.items()
        }
        section.results[mask] = {
            name: _entries(columns, experiment) for name, columns in found.items()
        }
        gamma = _shown(experiment, fixed)
        section.text.append(f"### {mask}\n")
        if len(experiment.gammas) > 1:
            section.text += [
                f"PSNR gain over no metadata (dB) with 95 % interval, {BOTH}:\n",
                _table_over_gammas(section.results[mask][BOTH], experiment),
            ]
        section.text.append(_table(section.results[mask], experiment, gamma))
    return section


def removal(
    measured: Measured, experiment: Experiment, numbers: list[int], fixed: float
) -> Section:
    """Return the section on metadata removed step by step (the paper's Figure 4)."""
    section = ladder(measured, experiment, numbers, fixed)
    for mask in experiment.masks:
        steps_of = {
            gamma: [
                section.results[mask][BOTH][experiment.method(edit, gamma).name]["psnr"][
                    "less_next"
                ]
                for edit in experiment.edits
            ]
            for gamma in experiment.gammas
        }
        shown = _shown(experiment, fixed)
        steps = steps_of[shown]
        everything = experiment.method(experiment.edits[0], shown).name
        whole = section.results[mask][BOTH][everything]["psnr"]["less_none"]
        section.claim(
            "PSNR falls in the paper's order as metadata is removed (all, − MR parameters, "
            f"− contrast, − slice, none; Figure 4), {mask}",
            all(step["mean"] > 0 for step in steps) and above(whole),
            "steps "
            + ", ".join(f"{step['mean']:+.3f}" for step in steps)
            + f" dB; {sum(map(above, steps))} of {len(steps)} intervals clear of 0; all less none "
            + evidence_of(whole, "dB")
            + _others(steps_of, experiment, fixed),
        )
        if {ALL, NO_PARAMETERS} <= set(experiment.edits):
            section.claim(
                f"the MR parameters matter (Figure 4), {mask}",
                above(steps[experiment.edits.index(ALL)]),
                evidence_of(steps[experiment.edits.index(ALL)], "dB"),
            )
    return section


def _others(steps_of: dict[float, Any], experiment: Experiment, fixed: float) -> str:
    """Return the number of other γ at which PSNR decreases in every step."""
    others = [gamma for gamma in steps_of if gamma != _shown(experiment, fixed)]
    if not others:
        return ""
    falling = [gamma for gamma in others if all(step["mean"] > 0 for step in steps_of[gamma])]
    return f"; it falls too at {len(falling)} of {len(others)} other γ"


def demographics(
    measured: Measured, experiment: Experiment, numbers: list[int], fixed: float
) -> Section:
    """Return the section on metadata with and without age and sex (the paper's Figure 5)."""
    section = ladder(measured, experiment, numbers, fixed)
    for mask in experiment.masks:
        gains = {
            gamma: _difference(measured, experiment, mask, numbers, (ALL, NO_DEMOGRAPHICS), gamma)
            for gamma in experiment.gammas
        }
        gain = gains[_shown(experiment, fixed)]
        section.claim(
            f"age and sex gain over all other metadata alone (Figure 5), {mask}",
            above(gain),
            evidence_of(gain, "dB") + _elsewhere(gains, _shown(experiment, fixed)),
        )
    return section


def pathology(
    measured: Measured, experiment: Experiment, numbers: list[int], fixed: float
) -> Section:
    """Return the section on the finding alone and with all metadata (the paper's Figure 6)."""
    section = ladder(measured, experiment, numbers, fixed)
    shown = _shown(experiment, fixed)

    def pairs(mask: str, one: str, other: str | None) -> dict[float, Any]:
        return {
            gamma: _difference(measured, experiment, mask, numbers, (one, other), gamma)
            for gamma in experiment.gammas
        }

    for mask in experiment.masks:
        cost, gain = pairs(mask, PATHOLOGY, WRONG_PATHOLOGY), pairs(mask, WRONG_PATHOLOGY, None)
        section.claim(
            f"a wrong pathology lies between none and the right one (Figure 6), {mask}",
            above(cost[shown]) and above(gain[shown]),
            f"right less wrong {evidence_of(cost[shown], 'dB')}; "
            f"wrong less none {evidence_of(gain[shown], 'dB')}",
        )
        gain = pairs(mask, PATHOLOGY, None)
        section.claim(
            f"the right pathology alone gains over none (Figure 6), {mask}",
            above(gain[shown]),
            evidence_of(gain[shown], "dB") + _elsewhere(gain, shown),
        )
        gain = pairs(mask, ALL, PATHOLOGY)
        section.claim(
            f"all metadata gain over the right pathology alone (Figure 6), {mask}",
            above(gain[shown]),
            evidence_of(gain[shown], "dB") + _elsewhere(gain, shown),
        )
        if ALL_WRONG_PATHOLOGY in experiment.edits:
            cost = pairs(mask, ALL, ALL_WRONG_PATHOLOGY)
            gain = pairs(mask, ALL_WRONG_PATHOLOGY, None)
            section.claim(
                "among all metadata a wrong pathology costs, and is still better than none "
                f"(Figure 6), {mask}",
                above(cost[shown]) and above(gain[shown]),
                f"right less wrong {evidence_of(cost[shown], 'dB')}; "
                f"wrong less none {evidence_of(gain[shown], 'dB')}",
            )
        section.text += _finding_table(section, measured, experiment, mask, numbers)
    return section


def field_strength(
    measured: Measured, experiment: Experiment, numbers: list[int], fixed: float
) -> Section:
    """Return the section on swapped field strengths, 1.5 T and 3 T."""
    section = ladder(measured, experiment, numbers, fixed)
    (mask,) = experiment.masks
    cost = _difference(measured, experiment, mask, numbers, (ALL, WRONG_FIELD), fixed)
    section.claim(
        "the right field strength is better than the wrong one",
        above(cost),
        evidence_of(cost, "dB"),
    )
    return section


def _difference(
    measured: Measured,
    experiment: Experiment,
    mask: str,
    numbers: list[int],
    edits: tuple[str, str | None],
    gamma: float,
) -> dict[str, Any]:
    """Return the PSNR difference of one prompt from another, or from none, over all pools."""
    methods = [
        experiment.method(ALL, 0.0) if edit is None else experiment.method(edit, gamma)
        for edit in edits
    ]
    cells = [(pool, mask) for pool in experiment.pools]
    found = scores(measured, cells, methods, numbers, names=("psnr",))
    one, other = (found[method.name]["psnr"] for method in methods)
    return paired(one, other)


def _elsewhere(gains: dict[float, Any], shown: float) -> str:
    """Return the means at the other γ as text."""
    rest = [f"{gain['mean']:+.3f} at γ = {gamma:g}" for gamma, gain in gains.items()]
    rest = [text for text, gamma in zip(rest, gains, strict=True) if gamma != shown]
    return f" ({', '.join(rest)})" if rest else ""


def _shown(experiment: Experiment, fixed: float) -> float:
    """Return the γ that is shown in full."""
    return fixed if fixed in experiment.gammas else experiment.gammas[0]


def _entries(columns: Scores, experiment: Experiment) -> dict[str, Any]:
    """Return mean, difference from none, and difference from the next prompt, by method."""
    none = experiment.methods[-1]
    nexts: dict[str, str] = {}
    for gamma in experiment.gammas:
        steps = [experiment.method(edit, gamma).name for edit in experiment.edits]
        nexts |= dict(pairwise([*steps, none.name]))
    return {
        name: {
            metric: {
                "mean": float(column.mean()),
                "less_none": paired(column, columns[none.name][metric]),
                **({"less_next": paired(column, columns[after][metric])} if after else {}),
            }
            for metric, column in columns[name].items()
        }
        for name, after in ((method.name, nexts.get(method.name)) for method in experiment.methods)
    }


def _table_over_gammas(entries: dict[str, Any], experiment: Experiment) -> str:
    return table(
        ["prompt", *(f"γ = {gamma:g}" for gamma in experiment.gammas)],
        [
            [
                edit,
                *(
                    with_interval(
                        entries[experiment.method(edit, gamma).name]["psnr"]["less_none"], 3
                    )
                    for gamma in experiment.gammas
                ),
            ]
            for edit in experiment.edits
        ],
    )


def _table(results: dict[str, Any], experiment: Experiment, gamma: float) -> str:
    """Return the table of means and differences of every prompt at one γ."""
    pools = [pool.name for pool in experiment.pools]
    none = experiment.methods[-1]
    rows = []
    for method in [*(experiment.method(edit, gamma) for edit in experiment.edits), none]:
        entry = results[BOTH][method.name]
        row = [
            method.name,
            *(f"{found[method.name]['psnr']['mean']:.2f}" for found in results.values()),
        ]
        if method is none:
            rows.append(row + [""] * (len(pools) + 3))
            continue
        row += [
            with_interval(results[name][method.name]["psnr"]["less_none"], 3)
            for name in (BOTH, *pools)
        ]
        row += [with_interval(entry["psnr"]["less_next"], 3)]
        row += [with_interval(entry["ssim"]["less_none"], 4)]
        rows.append(row)
    header = ["prompt", *(f"PSNR, {name}" for name in results), f"gain over none, {BOTH}"]
    header += [*(f"gain over none, {name}" for name in pools), f"gain over the next row, {BOTH}"]
    return table([*header, "SSIM gain over none"], rows)


def _finding_table(
    section: Section, measured: Measured, experiment: Experiment, mask: str, numbers: list[int]
) -> list[str]:
    """Return the table of gains over no prompt for each of the most frequent findings."""
    none = experiment.methods[-1]
    results: dict[str, dict[str, Any]] = {}
    for pool in experiment.pools:
        for finding, places in _most_frequent(measured, experiment, pool, mask, numbers).items():
            chosen = [numbers[place] for place in places]
            found = scores(measured, [(pool, mask)], experiment.methods, chosen, names=("psnr",))
            results[finding] = {
                "n": len(chosen),
                "anatomy": pool.anatomy,
                "less_none": {
                    method.name: paired(found[method.name]["psnr"], found[none.name]["psnr"])
                    for method in experiment.methods
                    if method is not none
                },
            }
    section.results[mask]["findings"] = results
    if not results:
        return []
    rows = [
        [
            f"{entry['anatomy']}, {finding} ({entry['n']}): {edit}",
            *(
                with_interval(entry["less_none"][experiment.method(edit, gamma).name], 3)
                for gamma in experiment.gammas
            ),
        ]
        for finding, entry in results.items()
        for edit in experiment.edits
    ]
    title = "PSNR gain over no metadata (dB) on the slices (their number) with each finding:\n"
    gammas = [f"γ = {gamma:g}" for gamma in experiment.gammas]
    return [title, table(["finding and prompt", *gammas], rows)]


def _most_frequent(
    measured: Measured, experiment: Experiment, pool: Pool, mask: str, numbers: list[int]
) -> dict[str, list[int]]:
    """Return the indices of the slices that show each of the most frequent findings."""
    method: Condition = experiment.methods[0]
    shown = [
        [name for name in text.split("; ") if name]
        for text in measured.words(pool, mask, method, "findings", numbers)
    ]
    counts = Counter(name for names in shown for name in names)
    return {
        name: [place for place, names in enumerate(shown) if name in names]
        for name, count in counts.most_common(_MOST_FINDINGS)
        if count >= _LEAST_SLICES
    }
