"""Every method on two real scans: a fully sampled T2 brain and an undersampled T1 brain.

    python -m benchmarks.real_scans --data DIR --output_dir benchmarks/results

``DIR`` holds ``brain_t2_4ch/coil_images.npy`` (4 coils, 256×256; MIT, gpuNUFFT) and
``brain_t1_8ch_undersampled/cartesian_ksp.npy`` (8 coils, 230×180; BSD-3, SigPy's MRI tutorial).

T2 brain: fully sampled. The reference is the MVUE combination with coil maps estimated from the
full data. No method gets those maps; all estimate theirs from the undersampled data. A second
reference, the root sum of squares, needs no maps; noise makes it brighter, so no method reaches it.
Undersampling is along the left-right axis, the more difficult one.

T1 brain: undersampled by the scanner. One sample in ten outside the calibration region is hidden,
and methods are scored by how well they predict it. Figure and data residual use all samples.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.arguments import open_named_prior, parse, prior_parser, recorded_options
from benchmarks.common.bart import BART_LAMBDAS
from benchmarks.common.figures import shrink
from benchmarks.common.held_out import center_fraction
from benchmarks.common.images import SliceResult, data_error, scores
from benchmarks.common.methods import PriorSettings, reconstruct_all
from benchmarks.common.record import Record, write_study
from benchmarks.common.words import listed
from ctxrecon.coils import (
    estimate_coil_maps,
    find_calibration_region,
    mvue,
    root_sum_of_squares,
)
from ctxrecon.errors import InputError
from ctxrecon.evaluation import solver_and_call, summary, table, with_error
from ctxrecon.figures import comparison_figure
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.masks import uniform1d
from ctxrecon.pipelines import ContextMRIPipeline

T2_FILE = "brain_t2_4ch/coil_images.npy"
T1_FILE = "brain_t1_8ch_undersampled/cartesian_ksp.npy"
_HELD_OUT = 0.1
_COLUMNS = {
    "psnr": ("PSNR (dB)", 2),
    "ssim": ("SSIM", 3),
    "psnr_rss": ("PSNR to RSS (dB)", 2),
    "ssim_rss": ("SSIM to RSS", 3),
    "held_out": ("NRMSE of hidden samples", 4),
    "residual": ("data residual", 4),
    "seconds": ("seconds", 1),
}

_SOLVERS = (
    "pnp_admm",
    "dds:image=pnp_admm",
    "dds:image=network",
)

_T2, _T1 = "brain_t2_4ch", "brain_t1_8ch_undersampled"

Runs = dict[str, dict[str, list[float]]]
Summaries = dict[str, dict[str, dict[str, Any]]]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = prior_parser("real_scans", __doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="Folder of the two scans.")
    add("--figures_dir", type=Path, help="Folder of the figures (default: --output_dir).")
    add("--samples", type=int, default=8, help="Posterior samples.")
    add("--steps", type=int, default=30, help="Diffusion steps.")
    add("--guidance_scales", type=float, nargs="+", default=[0.0, 1.0], help="Guidance scales γ.")
    add("--solvers", nargs="+", default=list(_SOLVERS), help="Solvers with their options.")
    add("--accelerations", type=float, nargs="+", default=[4.0, 8.0], help="Acceleration factors.")
    add("--masks", type=int, default=3, help="Masks at each acceleration.")
    add("--t2_prompt", default="Brain, T2", help="Prompt of the T2 scan.")
    add("--t1_prompt", default="Brain, T1", help="Prompt of the T1 scan.")
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    t2 = load(args.data / T2_FILE)
    t1 = load(args.data / T1_FILE)
    pipe, prior = open_named_prior(args)
    args.figures_dir = args.figures_dir or args.output_dir
    for folder in (args.output_dir, args.figures_dir):
        folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, object] = {
        "settings": {
            "prior": prior,
            "steps": args.steps,
            "samples": args.samples,
            "guidance_scales": args.guidance_scales,
            "solvers": args.solvers,
            "dtype": args.dtype,
            "masks": args.masks,
            "t2_prompt": args.t2_prompt,
            "t1_prompt": args.t1_prompt,
            "bart_lambdas": BART_LAMBDAS,
            "t1_sampled": float((t1 != 0).any(dim=1).float().mean()),
        }
    }
    with tqdm(total=len(args.accelerations) * args.masks + 2, unit="scan") as bar:
        for acceleration in args.accelerations:
            runs = fully_sampled(fft2c(t2), acceleration, pipe, args, bar)
            results[f"{_T2} x{acceleration:g}"] = summarize(runs)
        results[_T1] = summarize(undersampled(t1, pipe, args, bar))
    write_study(args.output_dir / "real_scans.json", results, args, page)


def page(record: Record) -> str:
    """Return the page: a verdict, the setting and a table for each scan and acceleration."""
    args, results = parse_args(recorded_options(record["command"])), record["results"]
    text = ["# Real scans\n", *_verdicts(args, results), _explanation(args)]
    for acceleration in args.accelerations:
        lines = f"×{acceleration:g}, {center_fraction(acceleration):.0%} center"
        text.append(f"## T2 brain, 4 coils, 256×256, uniform1d {lines}\n")
        text.append(markdown(results[f"{_T2} x{acceleration:g}"]))
    fraction = results["settings"]["t1_sampled"]
    text += [f"## T1 brain, 8 coils, 230×180, {fraction:.1%} sampled\n", markdown(results[_T1])]
    return "\n".join(text)


def _verdicts(args: argparse.Namespace, results: dict[str, Any]) -> list[str]:
    """Return the best method that uses the prior and the best other one, for each scan."""
    keys = {f"{_T2} x{factor:g}": f"T2 brain at ×{factor:g}" for factor in args.accelerations}
    keys[_T1] = "T1 brain"
    lines = []
    for key, title in keys.items():
        metric, name, digits = ("psnr", "PSNR", 2) if key != _T1 else ("held_out", "NRMSE", 4)
        unit, sign = (" dB", -1) if metric == "psnr" else ("", 1)
        parts = []
        for label, wanted in (("with the prior", True), ("without it", False)):
            found = {n: c[metric]["mean"] for n, c in results[key].items() if ("γ" in n) is wanted}
            if found:
                best = min(found, key=lambda one: sign * found[one])
                parts.append(f"{found[best]:.{digits}f}{unit} {label} (“{best}”)")
        lines.append(f"- {title}, best {name}: {' and '.join(parts)}.")
    return [*lines, ""]


def load(path: Path) -> Tensor:
    """Load a ``.npy`` file as ``(1, coils, ny, nx)``, complex64."""
    if not path.is_file():
        raise InputError(f"there is no {path}: set --data to the folder that holds it")
    array = np.load(path, allow_pickle=False)
    if array.ndim != 3 or not np.iscomplexobj(array):
        raise InputError(
            f"expected complex (coils, ny, nx) in {path}, got {array.dtype} of shape {array.shape}"
        )
    return torch.from_numpy(array.astype(np.complex64))[None]


def sampling_of(args: argparse.Namespace, prompt: str, seed: int) -> PriorSettings:
    """Return the settings of the prior from the command-line options."""
    return PriorSettings(
        prompt=prompt,
        guidance_scales=tuple(args.guidance_scales),
        steps=args.steps,
        samples=args.samples,
        solvers=tuple(solver_and_call(text) for text in args.solvers),
        seed=seed,
        batch_size=args.batch_size,
    )


def fully_sampled(
    kspace: Tensor,
    acceleration: float,
    pipe: ContextMRIPipeline,
    args: argparse.Namespace,
    bar: tqdm,
) -> Runs:
    """Undersample fully sampled k-space by several masks; return the scores of each method."""
    full = torch.ones((1, 1, *kspace.shape[-2:]), dtype=torch.bool)
    reference = mvue(kspace, estimate_coil_maps(kspace, full, num_maps=1))
    combined = root_sum_of_squares(ifft2c(kspace))
    runs: Runs = {}
    for number in range(args.masks):
        seed = args.seed + number
        bar.set_description(f"T2 ×{acceleration:g}, mask {number}")
        mask = uniform1d(
            (kspace.shape[-2], kspace.shape[-1]),
            acceleration,
            center_fraction(acceleration),
            generator=torch.Generator().manual_seed(seed),
        )
        y = kspace * mask
        found = reconstruct_all(
            y,
            mask,
            pipe,
            sampling_of(args, args.t2_prompt, seed),
            lambda images, maps: scores(images, reference)["psnr"],
            bar,
        )
        for name, item in found.items():
            values = scores(item.images, reference)
            against = scores(item.images, combined)
            values |= {"psnr_rss": against["psnr"], "ssim_rss": against["ssim"]}
            values["residual"] = data_error(item.images, item.coil_maps, y, mask)
            append(runs, name, values, item)
        if number == 0:
            figure(
                args.figures_dir / f"real_t2_x{acceleration:g}.png",
                found,
                reference[0],
                f"T2 brain, 4 coils, uniform1d ×{acceleration:g}, "
                f"{center_fraction(acceleration):.0%} centre, mask of seed {seed}",
            )
        bar.update()
    return runs


def undersampled(
    kspace: Tensor, pipe: ContextMRIPipeline, args: argparse.Namespace, bar: tqdm
) -> Runs:
    """Score a scan without ground truth by hidden samples; then reconstruct from all samples."""
    mask = (kspace != 0).any(dim=1, keepdim=True)
    hidden = hold_out(mask, torch.Generator().manual_seed(args.seed))
    kept = mask & ~hidden
    bar.set_description("T1, samples hidden")
    sampling = sampling_of(args, args.t1_prompt, args.seed)

    def prediction(images: Tensor, maps: Tensor) -> float:
        return -data_error(images, maps, kspace, hidden)

    runs: Runs = {}
    held = reconstruct_all(kspace * kept, kept, pipe, sampling, prediction, bar)
    bar.update()
    bar.set_description("T1, all samples")
    # BART keeps its weight, because without hidden samples there is no score to choose it by.
    weights = {name: item.chosen for name, item in held.items()}
    everything = reconstruct_all(kspace, mask, pipe, sampling, prediction, bar, weights=weights)
    for name, item in everything.items():
        values = {
            "held_out": data_error(held[name].images, held[name].coil_maps, kspace, hidden),
            "residual": data_error(item.images, item.coil_maps, kspace, mask),
        }
        append(runs, name, values, item)
    bar.update()
    title = "T1 brain, 8 coils, undersampled by the scanner, no ground truth"
    figure(args.figures_dir / "real_t1.png", everything, None, title)
    return runs


def hold_out(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Choose one sampled position in ten outside the calibration region.

    Returns:
        Mask of shape ``(1, 1, ny, nx)``, bool.
    """
    rows, columns = find_calibration_region(mask)
    candidates = mask.clone()
    candidates[..., rows, columns] = False
    places = candidates.flatten().nonzero().flatten()
    count = round(_HELD_OUT * len(places))
    hidden = torch.zeros(mask.numel(), dtype=torch.bool)
    hidden[places[torch.randperm(len(places), generator=generator)[:count]]] = True
    return hidden.reshape(mask.shape)


def append(runs: Runs, name: str, values: dict[str, float], item: SliceResult) -> None:
    """Append the values of one run of a method."""
    values = values | {"seconds": item.seconds}
    if item.chosen is not None:
        values["weight"] = item.chosen
    for key, value in values.items():
        runs.setdefault(name, {}).setdefault(key, []).append(value)


def summarize(runs: Runs) -> Summaries:
    """Return every value with its mean and standard error over the masks."""
    return {
        name: {key: {**summary(values), "values": values} for key, values in columns.items()}
        for name, columns in runs.items()
    }


def markdown(found: Summaries) -> str:
    """Return the table of one scan, one row per method."""
    first = next(iter(found.values()))
    keys = [key for key in _COLUMNS if key in first]
    rows = [
        [name, *(with_error(columns[key], _COLUMNS[key][1]) for key in keys)]
        for name, columns in found.items()
    ]
    return table(["method", *(_COLUMNS[key][0] for key in keys)], rows)


def figure(path: Path, found: dict[str, SliceResult], reference: Tensor | None, title: str) -> None:
    """Draw the first image of every method, of the prior only those at its largest γ."""
    prior = [name for name in found if "γ" in name]
    strongest = prior[-1].split(",")[0].split("γ")[1]
    shown = {name: item for name, item in found.items() if name not in prior or strongest in name}
    comparison_figure(
        path,
        {name: item.images[0] for name, item in shown.items()},
        reference,
        std=shown[prior[-1]].std,
        reference_name="full data",
        title=title,
    )
    shrink(path)


def _explanation(args: argparse.Namespace) -> str:
    """Return the description of setting and columns."""
    gammas = ", ".join(f"{gamma:g}" for gamma in args.guidance_scales)
    prior = "the shipped prior" if args.prior is None else f"the prior `{Path(args.prior).name}`"
    solvers = listed([f"`{text}`" for text in args.solvers])
    return f"""\
Every method uses coil maps from the undersampled scan. The diffusion prior is {prior} with
the solvers {solvers}, {args.steps} steps, γ = {gammas} and the prompts
“{args.t2_prompt}” and “{args.t1_prompt}”; γ = 0 ignores the prompt. “One sample” is the average
score of {args.samples} posterior samples, each scored alone, “mean of {args.samples}” the score of
their mean. BART's `pics` uses the weight with the best score on the same scan, which a user cannot
know; the other methods run at their defaults. Seconds are per image without coil maps; other work
ran on the machine.

T2 brain: mean ± standard error over {args.masks} masks, slice-wise, on magnitudes. The reference is
the MVUE combination of the fully sampled data with maps from these data; “RSS” columns compare with
their root sum of squares. Readout lines run along the anterior-posterior axis and are undersampled
along the left-right axis, the more difficult one: along the other axis, CG-SENSE gains about 1 dB.
T1 brain: NRMSE of one sample in ten outside the calibration region, hidden from every method; the
noise of these samples is part of the error.
"""


if __name__ == "__main__":
    main()
