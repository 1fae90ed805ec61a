"""``ctxrecon demo``: reconstruct the shipped scan with every method."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctxrecon.commands.logs import say
from ctxrecon.commands.methods import (
    COMPARED,
    PriorRun,
    open_network,
    open_prior,
    run_baseline,
    run_network,
    run_prior,
)
from ctxrecon.commands.paths import OVERWRITE, check_outputs
from ctxrecon.commands.results import figure_images

_STEPS = 20
_SAMPLES = 4
_SEED = 0


def demo_scan() -> Path:
    """Return the path of the shipped scan, a slice of the digital phantom.

    It was written by ``ctxrecon simulate --out demo_scan.npz --anatomy brain --contrast T2
    --undersample uniform1d --acceleration 4 --center-fraction 0.08 --seed 6``.
    """
    import ctxrecon.checkpoints

    return Path(ctxrecon.checkpoints.__file__).parent / "demo_scan.npz"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the figure and the metrics.")] = Path(
        "ctxrecon-demo"
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
) -> None:
    """Reconstruct a shipped scan with every method; takes half a minute on two free cores.

    The scan is a slice of the digital phantom on which the prior and the network were trained;
    this slice was not in the training set. The demo shows how the methods work, not how they
    perform on patients.
    """
    picture, measured = out / "comparison.png", out / "metrics.json"
    check_outputs((picture, measured), overwrite=overwrite, folder=out)

    from ctxrecon.commands.report import Table
    from ctxrecon.figures import comparison_figure
    from ctxrecon.io import read_scan
    from ctxrecon.pipelines import prepare_measurement

    scan = read_scan(demo_scan())
    assert scan.target is not None
    prompts = [item.to_prompt() for item in scan.metadata]
    pipe = open_prior(None, None)
    _, coils, ny, nx = scan.kspace.shape
    achieved = 1 / float(scan.cartesian_mask.float().mean())
    say(f"scan: {demo_scan()}\n{coils} coils, {ny}×{nx}, acceleration {achieved:.2f}")
    say(f"prompt: {prompts[0]}\n")
    measurement = prepare_measurement(scan.kspace, scan.mask)  # estimates the coil maps

    table = Table(scan.target)
    results = []
    for method in COMPARED:
        results.append(run_baseline(method, measurement))
        table.add(results[-1])
    results.append(run_network(open_network(None), None, measurement))
    table.add(results[-1])
    for prompt, samples in ((None, 1), (prompts, 1), (prompts, _SAMPLES)):
        run = PriorRun(prompt, 1.0, _STEPS, samples, _SEED, solver=None)
        results.append(run_prior(pipe, run, measurement))
        table.add(results[-1])

    final = results[-1]
    figure = comparison_figure(
        picture,
        figure_images(results, 0),
        scan.target[0],
        std=None if final.std is None else final.std[0],
        title=f"{prompts[0]}; ×{achieved:.3g}",
    )
    metrics = table.write(measured, file="demo_scan.npz", reference="target", prompts=prompts)
    say(f"\nfigure: {figure}\nmetrics: {metrics}")
