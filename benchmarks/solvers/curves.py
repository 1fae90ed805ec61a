"""Quality against network evaluations: every solver at 5 to 100 steps on held-out phantom scans.

    python -m benchmarks.solvers.curves --output_dir benchmarks/results \
        --label_volumes DIR/training_seg_1[3-6].nii.gz

The first method is the paper's DDS at 100 evenly spaced steps; the others are compared with it scan
by scan. Methods that reduce the number of evaluations run on ``--scans`` scans, all solvers on the
first ``--solver_scans`` of them. Rows are appended to ``solver_curves/`` as they finish; a stopped
run resumes.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from accelerate import PartialState

from benchmarks.common.arguments import (
    held_out_parser,
    open_named_prior,
    parse,
    recorded_options,
)
from benchmarks.common.figures import save_figure
from benchmarks.common.held_out import NUM_COILS, SNR, held_out_scans
from benchmarks.common.methods import shipped_network
from benchmarks.common.record import Record, write_study
from benchmarks.common.words import change
from ctxrecon.evaluation import (
    Grid,
    Method,
    Undersampling,
    baseline_method,
    find_scans,
    fingerprint,
    network_method,
    run_grid,
    solver_and_call,
    solver_methods,
    table,
    with_error,
)
from ctxrecon.evaluation.report import Cell, summarize
from ctxrecon.evaluation.scans import slices_of
from ctxrecon.io import write_scan
from ctxrecon.pipelines import ContextMRIPipeline

STEPS = (5, 10, 20, 50, 100)
PAPER = "dds:eta=0.8:data_weight=5:cg_iterations=5:timesteps=scheduler"
"""DDS as published, with evenly spaced timesteps."""

_TUNED = "dds:data_weight=50:cg_iterations=10"
_IDEAS: dict[str, tuple[int, ...]] = {
    PAPER: (100, 20),
    "dds": (20,),
    _TUNED: (20,),
    f"{_TUNED}:image=l1_wavelet": (20,),
    "pnp_hqs": (20,),
    "pnp_admm": (5, 10, 20),
    "pnp_admm:noise_std=auto": (20,),
    "dds:image=pnp_admm:strength=0.3": (20,),
    "dds:image=network:strength=0.3": (20,),
}
"""Methods that reduce the number of evaluations, and their numbers of steps."""

_SOLVERS = (
    *(PAPER, "dds", "ddnm", "dps", "pigdm", "diffpir", "red_diff", "daps"),
    *("pnp_hqs", "pnp_admm", "score_mri:corrector_steps=0"),
)
"""Solvers that run at every number of steps."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = held_out_parser("solvers.curves", __doc__)
    add = parser.add_argument
    add("--scans", type=int, default=66, help="Scans of the first part.")
    add("--solver_scans", type=int, default=12, help="Scans of the comparison of all solvers.")
    add("--steps", type=int, nargs="+", default=list(STEPS), help="Steps of every solver.")
    add("--guidance_scale", type=float, default=1.0, help="Guidance scale γ.")
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    pipe, prior = open_named_prior(args)
    folder = args.output_dir / "solver_curves"
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "prior": prior,
        # Rows name the network by its class, which stays the same when its weights change.
        "network": fingerprint(shipped_network()[1]),
        "label_volumes": [path.name for path in args.label_volumes],
        "coils": NUM_COILS,
        "snr": SNR,
        **{name: getattr(args, name) for name in ("resolution", "guidance_scale", "dtype", "seed")},
    }
    parts: dict[str, list[Cell]] = {}
    with tempfile.TemporaryDirectory() as scans:
        write_scans(Path(scans), args)
        for name, methods, count in [
            ("ideas", ideas(pipe, args), args.scans),
            ("solvers", every_solver(pipe, args), args.solver_scans),
        ]:
            grid = Grid(
                slices=slices_of(find_scans([Path(scans)]))[:count],
                acquisitions=tuple(Undersampling("uniform1d", r) for r in args.accelerations),
                methods=tuple(methods),
                seed=args.seed,
                batch_size=args.batch_size,
            )
            rows = run_grid(grid, folder, settings, PartialState(cpu=pipe.device.type == "cpu"))
            assert rows is not None  # a single process
            found = summarize(rows, grid)
            parts[name] = [cell for cells in found.values() for cell in cells.values()]
    results = {
        "settings": settings,
        **{name: [asdict(cell) for cell in cells] for name, cells in parts.items()},
    }
    write_study(args.output_dir / "solver_curves.json", results, args, page)
    draw(args.output_dir / "solver_curves.png", parts["solvers"], args)


def write_scans(folder: Path, args: argparse.Namespace) -> None:
    """Write the held-out scans to files, in their order."""
    drawn = held_out_scans(args.scans, args.resolution, args.label_volumes, args.seed)
    for number, (kind, scan) in enumerate(drawn):
        write_scan(folder / f"{number:03d}_{kind.replace(' ', '_')}.npz", scan)


def methods_of(
    text: str, steps: tuple[int, ...], pipe: ContextMRIPipeline, args: argparse.Namespace
) -> list[Method]:
    """Return one solver with its options at several numbers of steps."""
    solver, call = solver_and_call(text)
    return solver_methods(
        text,
        solver,
        pipe,
        prompts=["metadata"],
        guidance_scale=args.guidance_scale,
        steps=steps,
        samples=1,
        batch_size=args.batch_size,
        call=call,
    )


def ideas(pipe: ContextMRIPipeline, args: argparse.Namespace) -> list[Method]:
    """Return the paper's DDS, methods with fewer evaluations, L1-wavelet and a network."""
    found = [one for text, steps in _IDEAS.items() for one in methods_of(text, steps, pipe, args)]
    shipped = network_method(*shipped_network())
    return [*found, baseline_method("l1-wavelet", "l1_wavelet"), shipped]


def every_solver(pipe: ContextMRIPipeline, args: argparse.Namespace) -> list[Method]:
    """Return every solver at every number of steps, the paper's DDS at the most steps first."""
    steps = tuple(sorted(args.steps, reverse=True))
    return [one for text in _SOLVERS for one in methods_of(text, steps, pipe, args)]


def page(record: Record) -> str:
    """Return the page: a verdict, the setting and a table for each part and acceleration."""
    args, results = parse_args(recorded_options(record["command"])), record["results"]
    text = ["# Quality against network evaluations\n", _verdict(args, results)]
    text.append(_explanation(args, results["settings"]))
    titles = {"ideas": ("Fewer evaluations", args.scans)}
    titles["solvers"] = ("Every solver", args.solver_scans)
    for name, (title, count) in titles.items():
        cells = [Cell(**cell) for cell in results[name]]
        text.append(f"## {title}, n = {count}\n")
        for acceleration in args.accelerations:
            text += [
                f"uniform1d ×{acceleration:g}:\n",
                table(
                    ["method", "steps", "evaluations", "PSNR (dB)", "gain (dB)", "SSIM"],
                    [_line(cell) for cell in cells if cell.acceleration == acceleration],
                ),
            ]
    text.append("![PSNR against network evaluations](solver_curves.png)\n")
    return "\n".join(text)


def _verdict(args: argparse.Namespace, results: dict[str, Any]) -> str:
    """Return the best method of the first part at each acceleration, in words."""
    lines = []
    for acceleration in args.accelerations:
        own = [Cell(**one) for one in results["ideas"] if one["acceleration"] == acceleration]
        best = max(own, key=lambda cell: cell.scores["psnr"]["mean"] or 0.0)
        lines.append(
            f"At ×{acceleration:g}, `{best.method}` has the highest PSNR; with "
            f"{best.evaluations:.3g} evaluations it {change(best.less_first['psnr'])} over the "
            f"paper's DDS with {own[0].evaluations:.3g}."
        )
    return "\n".join(lines) + "\n"


def _line(cell: Cell) -> list[str]:
    return [
        f"`{cell.method}`",
        "" if cell.steps is None else str(cell.steps),
        f"{cell.evaluations:.3g}",
        with_error(cell.scores["psnr"], 2),
        with_error(cell.less_first["psnr"], 2, sign=True),
        with_error(cell.scores["ssim"], 3),
    ]


def draw(path: Path, cells: list[Cell], args: argparse.Namespace) -> None:
    """Plot PSNR against evaluations, a panel for each acceleration and a line for each solver."""
    figure, panels = plt.subplots(
        1, len(args.accelerations), figsize=(5.2 * len(args.accelerations), 4.2), squeeze=False
    )
    for panel, acceleration in zip(panels[0], args.accelerations, strict=True):
        for number, text in enumerate(_SOLVERS):
            mine = [c for c in cells if c.method == text and c.acceleration == acceleration]
            mine.sort(key=lambda cell: cell.evaluations)
            panel.errorbar(
                [cell.evaluations for cell in mine],
                [cell.scores["psnr"]["mean"] for cell in mine],
                [cell.scores["psnr"]["standard_error"] or 0.0 for cell in mine],
                color="black" if text == PAPER else f"C{number % 10}",
                marker="os^vD"[number // 2 % 5],
                linestyle="--" if text == PAPER else "-",
                label="dds, the paper's timesteps" if text == PAPER else text.split(":")[0],
                capsize=2,
            )
        panel.set_xscale("log")
        panel.set_xticks(args.steps, [str(count) for count in args.steps])
        panel.minorticks_off()
        panel.set_xlabel("network evaluations of a slice")
        panel.set_ylabel("PSNR (dB)")
        panel.set_title(f"uniform1d ×{acceleration:g}")
        panel.grid(alpha=0.3)
    panels[0][-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.tight_layout()
    save_figure(path, figure, dpi=120)
    plt.close(figure)


def _explanation(args: argparse.Namespace, settings: dict[str, object]) -> str:
    """Return the description of setting and columns."""
    kinds = "knees, brains" + ", label volumes" * bool(args.label_volumes)
    return f"""\
Held-out phantom scans ({kinds}), {args.resolution}², {NUM_COILS} coils, complex noise of
{1 / SNR:.0%} of the bright signal, a different mask for each scan, coil maps from the undersampled
scan; prior `{settings["prior"]}`, γ = {args.guidance_scale:g}, network in {args.dtype}. Metrics are
slice-wise on magnitudes, mean ± standard error over the scans; “gain” is the paired difference from
the first row, the paper's DDS at 100 evenly spaced steps. Steps are spaced quadratically unless the
method says `timesteps=scheduler`. A slice with two sets of coil maps needs two evaluations a step.
Nothing was tuned on these scans.
"""


if __name__ == "__main__":
    main()
