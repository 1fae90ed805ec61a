"""Pages of the study."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.common.arguments import recorded_options
from benchmarks.common.paired import with_interval
from benchmarks.common.record import Record
from benchmarks.common.words import change, listed
from benchmarks.cross_modal.prior import PROXIMAL, STARTED, TITLE
from benchmarks.cross_modal.tables import METRICS, TABLES, Table, motions_text, parse_args
from ctxrecon.evaluation import table

_TITLES = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "nmse": "NMSE",
    "psnr_synthetic": "PSNR of the synthetic T2 (dB)",
    "endpoint_error": "endpoint error (px)",
    "folds": "share of folds",
}


def page(record: Record) -> str:
    """Return the page of a table: a verdict, the setting and a table for each task."""
    results = record["results"]
    if "complexity" in results:
        return _complexity(results["complexity"])
    args = parse_args(recorded_options(record["command"]))
    chosen = TABLES[results["table"]]
    text = [f"# {chosen.title}\n", *_verdicts(chosen, results["tasks"]), ""]
    near = any(PROXIMAL in scores for scores in results["tasks"].values())
    text.append(_explanation(chosen, args, near=near))
    for task, scores in results["tasks"].items():
        text += [f"## {task}\n", _table(scores, chosen.compared)]
    if chosen.picture is not None:
        text += ["Reconstructions of one scan:\n", f"![Every entry]({chosen.picture})\n"]
    return "\n".join(text)


def _verdicts(chosen: Table, tasks: dict[str, dict[str, Any]]) -> list[str]:
    """Return a line for each task that names the best entry without privileged input."""
    still = {entry.title for entry in chosen.entries if entry.still}
    lines = []
    for task, scores in tasks.items():
        rated = {title: found for title, found in scores.items() if title not in still}
        best = max(rated, key=lambda title: rated[title]["psnr"]["mean"])
        line = f"“{best}” has the highest mean PSNR ({task})"
        if "more" in rated[best]:
            line += f": compared with “{chosen.compared}” it {change(rated[best]['more'])}"
        lines.append(line + ".")
    return lines if len(lines) == 1 else [f"- {line}" for line in lines]


def _explanation(chosen: Table, args: argparse.Namespace, *, near: bool) -> str:
    """Return the description of setting and columns."""
    times = "once" if len(args.seeds) == 1 else f"{len(args.seeds)} times"
    return f"""\
{args.test_scans} scans of held-out people, {args.resolution}², single-coil magnitudes. Metrics are
slice-wise, mean ± standard deviation over the scans; the last column is the paired difference from
“{chosen.compared}” with its 95 % interval over people. Every network was trained {times} on
{args.scans} pairs for {args.steps} steps of {args.batch_size}; scores are averaged over trainings.
A motion of 1 px shifts by at most 1 px along each axis, deforms by at most one more, and rotates by
N(0, 1°); larger motions are multiples of it.
The endpoint error of the displacement is averaged inside the head; the row “zero-filled” shows the
error without alignment. “Share of folds” is the fraction of pixels where the displacement folds.
{_of_bound(chosen)}{_of_registration(chosen, args)}{_of_prior(chosen, args, near=near)}"""


def _of_bound(chosen: Table) -> str:
    """Return the description of entries with references without motion, if any."""
    titles = [f"“{entry.title}”" for entry in chosen.entries if entry.still]
    if not titles:
        return ""
    return f"{listed(titles)} uses a T1 scan without motion and is an upper bound.\n"


def _of_registration(chosen: Table, args: argparse.Namespace) -> str:
    """Return the description of entries with pretrained aligners, if any."""
    if not any(entry.registered for entry in chosen.entries):
        return ""
    text = (
        "Entries with “known motion first” start from an aligner that was trained on the true\n"
        f"displacement of {args.registration_scans} pairs with motions of "
        f"{motions_text(chosen.motions)} for {args.registration_steps} steps of 16.\n"
    )
    if any(":passes=1" in entry.network for entry in chosen.entries if entry.registered):
        text += (
            "Entries with “one pass” align the T1 image to the zero-filled image. Others first\n"
            "reconstruct without a guide and align to the result; one network serves both passes.\n"
        )
    return text


def _of_prior(chosen: Table, args: argparse.Namespace, *, near: bool) -> str:
    """Return the description of the diffusion prior's rows, if any."""
    if chosen.started is None:
        return ""
    text = f"""
“{TITLE}” is the package's diffusion prior with its default solver and the prompt of the T2 scan;
“{STARTED}” is DDS started from the synthetic T2 of “{chosen.started}” with
{100 * args.strength:g} % of the diffusion remaining. The prior was trained on other images and on
none of these pairs.
"""
    if near:
        text += (
            f"“{PROXIMAL}” adds {args.proximal_weight:g} ‖x − x_G‖² with that image x_G to the "
            "data term.\n"
        )
    return text


def _table(scores: dict[str, dict[str, Any]], compared: str) -> str:
    lines = [
        [
            title,
            *(_spread(found.get(name), digits) for name, digits in METRICS.items()),
            with_interval(found["more"], 2) if "more" in found else "",
        ]
        for title, found in scores.items()
    ]
    return table(["entry", *_TITLES.values(), f"PSNR gain over “{compared}” (dB)"], lines)


def _spread(found: dict[str, float] | None, digits: int) -> str:
    if found is None:
        return ""
    return f"{found['mean']:.{digits}f} ± {found['deviation']:.{digits}f}"


def _complexity(found: dict[str, dict[str, float]]) -> str:
    lines = [
        [name, f"{one['parameters']:.2f}", f"{one['macs']:.1f}"] for name, one in found.items()
    ]
    own, paper = found["together"], found["OT-based, published"]
    heading = f"""\
# Size of the networks

The networks have {own["parameters"]:.2f} × 10⁶ parameters and take {own["macs"]:.1f} × 10⁹
multiply-accumulates in total; the publication reports {paper["parameters"]:.2f} × 10⁶ and
{paper["macs"]:.1f} × 10⁹.

Counted at 320² with one run of every network: reconstruction R without a guide, alignment OT_S,
synthesis OT_M and their critics.

"""
    return heading + table(["network", "parameters (10⁶)", "multiply-accumulates (10⁹)"], lines)
