r"""Weight of the prior, set from the noise level alone or from held-out k-space samples.

    python -m benchmarks.solvers.strength --output_dir benchmarks/results \
        [--data DIR] [--people DIR]

Plug-and-play ADMM runs at the estimated noise level of the scan times each of the factors of
``ctxrecon.inference.weighting``. The factor chosen by held-out samples, as ``noise_std="auto"``
does, is compared with the factor that the reference would choose, which is unknown in practice.
Test data are held-out phantom scans; with ``--data``, the two real scans of
``benchmarks.real_scans``; and with ``--people``, slices of held-out people from a folder of
``ctxrecon prepare images`` with a simulated phase, simulated coils and 1 % noise, once with a
noiseless reference and once with noise left in the reference, as in fastMRI.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.arguments import open_named_prior, parse, prior_parser, recorded_options
from benchmarks.common.held_out import center_fraction, held_out_anatomy, scan_seed
from benchmarks.common.images import data_error
from benchmarks.common.record import Record, write_study
from benchmarks.common.timing import timed
from benchmarks.common.words import span
from benchmarks.real_scans import T1_FILE, T2_FILE, hold_out, load
from ctxrecon.coils import estimate_coil_maps, mvue, simulate_coil_maps
from ctxrecon.datasets import ShardSlices
from ctxrecon.evaluation import table
from ctxrecon.fourier import fft2c
from ctxrecon.inference.diffusion import Diffusion
from ctxrecon.inference.noise import noise_of
from ctxrecon.inference.weighting import FACTORS, choose_factors
from ctxrecon.masks import uniform1d
from ctxrecon.measurement import Measurement
from ctxrecon.metrics import image_metrics
from ctxrecon.phantom import phantom_scan
from ctxrecon.phantom.imaging import smooth_field
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.solvers import PnPADMM
from ctxrecon.training.slices import resize

NOISE = 0.01
"""Noise level of phantoms and people, relative to the 99 % quantile of the image."""


class Case(NamedTuple):
    """A measurement with its references.

    Attributes:
        group: Name of the group of cases to average.
        kspace: k-space of shape ``(1, coils, ny, nx)``, zero outside the mask.
        mask: Sampling mask of shape ``(1, 1, ny, nx)``, bool.
        coil_maps: Coil maps of shape ``(1, coils, ny, nx)``.
        prompt: Prompt of the slice.
        references: Reference images ``(1, ny, nx)`` by name.
        hidden: k-space and mask of hidden samples to predict if there is no reference.
    """

    group: str
    kspace: Tensor
    mask: Tensor
    coil_maps: Tensor
    prompt: str
    references: dict[str, Tensor]
    hidden: tuple[Tensor, Tensor] | None = None


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = prior_parser("solvers.strength", __doc__)
    add = parser.add_argument
    add("--data", type=Path, help="Folder of the two real scans.")
    add("--people", type=Path, help="Folder of prepared magnitude images.")
    add("--scans", type=int, default=4, help="Phantom scans, brains and knees in turn.")
    add("--slices", type=int, default=4, help="People, one slice of each.")
    add("--left_noise", type=float, default=0.03, help="Noise left in the people's references.")
    add("--accelerations", type=float, nargs="+", default=[4.0, 8.0], help="Acceleration factors.")
    add("--masks", type=int, default=1, help="Masks of the real T2 scan.")
    add("--coils", type=int, default=8, help="Coils of phantoms and people.")
    add("--resolution", type=int, default=256, help="Matrix size of phantoms and people.")
    add("--steps", type=int, default=30, help="Solver steps.")
    add("--turns", type=int, default=3, help="Turns of the timing; 0 skips it.")
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    pipe, prior = open_named_prior(args)
    results: dict[str, Any] = {"settings": {"prior": prior, "factors": FACTORS}, "rows": []}
    with torch.no_grad(), tqdm(unit="case") as bar:
        for case in cases(args):
            results["rows"].append(rate(pipe, case, args.steps))
            bar.update()
    if args.turns:
        results["seconds"] = times(pipe, args)
    write_study(args.output_dir / "strength.json", results, args, page)


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """Yield all cases."""
    for acceleration in args.accelerations:
        for number in range(args.scans):
            yield phantom_case(args, number, acceleration)
        if args.people is not None:
            for number in range(args.slices):
                for left in (0.0, args.left_noise):
                    yield person_case(args, number, acceleration, left)
        if args.data is not None:
            for number in range(args.masks):
                yield t2_case(args, number, acceleration)
    if args.data is not None:
        yield t1_case(args)


def rate(pipe: ContextMRIPipeline, case: Case, num_inference_steps: int) -> dict[str, Any]:
    """Return the scores at every factor in order, and the index of the chosen factor."""
    measurement = Measurement.from_arrays(case.kspace, case.mask, case.coil_maps)
    measurement = measurement.to(pipe.unet.device)
    solver, scale = PnPADMM(), measurement.intensity_scale()
    noise = noise_of("auto", solver, measurement, scale, torch.ones(1, device=scale.device))
    assert noise is not None
    steps = pipe.choose_timesteps(num_inference_steps, "quadratic")
    conditions = pipe.encode_conditions([case.prompt], None, 1.0, 1)
    crop = pipe.padding(measurement.image_shape)
    diffusion = Diffusion(pipe, measurement, scale, conditions, crop, None)
    factors = torch.tensor(FACTORS, device=scale.device)
    latents = torch.zeros(len(FACTORS), 2, *crop.domain_shape[1:], device=scale.device)
    images = diffusion.run("factors", solver, steps, latents, noise, factors=factors).cpu()
    chosen = choose_factors(diffusion, solver, steps, noise)
    row: dict[str, Any] = {
        "group": case.group,
        "noise": float(noise / scale),
        "chosen": 0 if chosen is None else FACTORS.index(round(float(chosen), 6)),
    }
    for name, reference in case.references.items():
        found = image_metrics(images, reference.expand(len(images), -1, -1))
        row[name] = {metric: found[metric].tolist() for metric in ("psnr", "ssim")}
    if case.hidden is not None:
        kspace, hidden = case.hidden
        row["hidden"] = [data_error(one[None], case.coil_maps, kspace, hidden) for one in images]
    return row


def times(pipe: ContextMRIPipeline, args: argparse.Namespace) -> dict[str, list[float]]:
    """Time the pipeline with a given noise level and with the choice of the factor."""
    case = phantom_case(args, 0, args.accelerations[0])
    call: dict[str, Any] = {"coil_maps": case.coil_maps, "num_inference_steps": args.steps}

    def run(noise_std: float | str) -> object:
        return pipe(case.kspace, case.mask, case.prompt, noise_std=noise_std, **call)

    return timed({"given": lambda: run(NOISE), "chosen": lambda: run("auto")}, args.turns)


def phantom_case(args: argparse.Namespace, number: int, acceleration: float) -> Case:
    """Return a held-out phantom scan."""
    seed = scan_seed(args.seed, number)
    generator = torch.Generator().manual_seed(seed)
    anatomy = held_out_anatomy(("brain", "knee")[number % 2], seed, args.resolution, generator)
    size = (args.resolution, args.resolution)
    scan = phantom_scan(anatomy, shape=size, num_coils=args.coils, snr=None, generator=generator)
    assert scan.target is not None
    assert scan.coil_maps is not None
    prompt = scan.metadata[0].to_prompt()
    # A generator of its own, so that the mask of a seed does not depend on the phantom's draws.
    generator = torch.Generator().manual_seed(seed)
    return _measured("phantom", scan.target, {}, scan.coil_maps, prompt, acceleration, generator)


def person_case(args: argparse.Namespace, number: int, acceleration: float, left: float) -> Case:
    """Return the middle slice of one person, with noise ``left`` in the reference."""
    shards = ShardSlices(args.people)
    subjects = sorted(set(shards.subjects))
    rng = np.random.default_rng([args.seed, number])
    subject = subjects[int(np.linspace(0, len(subjects) - 1, args.slices)[number])]
    own = [index for index, name in enumerate(shards.subjects) if name == subject]
    item: Any = shards[own[len(own) // 2]]
    magnitude = torch.from_numpy(np.array(item["image"][0], np.float32))
    ny, nx = magnitude.shape
    phase = np.pi * rng.random() * smooth_field((ny, nx), 3, rng)
    image = torch.polar(magnitude, torch.from_numpy(phase.astype(np.float32)))
    if image.shape[-1] != args.resolution:
        image = resize(image, args.resolution)
    image = image[None].to(torch.complex64)
    ny, nx = image.shape[1:]
    generator = torch.Generator().manual_seed(scan_seed(args.seed, number))
    maps = simulate_coil_maps(args.coils, (ny, nx), generator=generator)
    noisy = image + left * torch.randn(image.shape, dtype=torch.complex64, generator=generator)
    prompt = item["metadata"].to_prompt(shards.prompt_form)
    references = {"noiseless": image} if left else {}
    group = f"people, {left:.0%} noise left" if left else "people"
    # The generator continues, so that mask and measurement noise are independent of the reference.
    return _measured(group, noisy, references, maps, prompt, acceleration, generator)


def _measured(
    group: str,
    image: Tensor,
    references: dict[str, Tensor],
    coil_maps: Tensor,
    prompt: str,
    acceleration: float,
    generator: torch.Generator,
) -> Case:
    """Simulate undersampled noisy k-space of an image, which is the reference by default."""
    size = (image.shape[1], image.shape[2])
    mask = uniform1d(size, acceleration, center_fraction(acceleration), generator=generator)
    kspace = fft2c(coil_maps * image[:, None])
    noise = torch.randn(kspace.shape, dtype=torch.complex64, generator=generator)
    return Case(
        f"{group} ×{acceleration:g}",
        (kspace + NOISE * noise) * mask,
        mask,
        coil_maps,
        prompt,
        references | {"reference": image} if references else {"noiseless": image},
    )


def t2_case(args: argparse.Namespace, number: int, acceleration: float) -> Case:
    """Return the real T2 brain with one of several masks."""
    kspace = fft2c(load(args.data / T2_FILE))
    size = (kspace.shape[2], kspace.shape[3])
    full = torch.ones((1, 1, *size), dtype=torch.bool)
    reference = mvue(kspace, estimate_coil_maps(kspace, full, num_maps=1))
    generator = torch.Generator().manual_seed(args.seed + number)
    mask = uniform1d(size, acceleration, center_fraction(acceleration), generator=generator)
    maps = estimate_coil_maps(kspace * mask, mask, num_maps=1)
    group, prompt = f"real T2 brain ×{acceleration:g}", "Brain, T2"
    return Case(group, kspace * mask, mask, maps, prompt, {"reference": reference})


def t1_case(args: argparse.Namespace) -> Case:
    """Return the real T1 brain with one sample in ten hidden."""
    kspace = load(args.data / T1_FILE)
    sampled = (kspace != 0).any(dim=1, keepdim=True)
    hidden = hold_out(sampled, torch.Generator().manual_seed(args.seed))
    mask = sampled & ~hidden
    maps = estimate_coil_maps(kspace * mask, mask, num_maps=1)
    return Case("real T1 brain", kspace * mask, mask, maps, "Brain, T1", {}, (kspace, hidden))


def page(record: Record) -> str:
    """Return the page: a verdict, the setting and the table."""
    args, results = parse_args(recorded_options(record["command"])), record["results"]
    factors = results["settings"]["factors"]
    text = ["# Weight of the prior\n", _verdict(results["rows"]), _explanation(args)]
    lines = []
    for group in dict.fromkeys(row["group"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["group"] == group]
        for name in ("noiseless", "reference", "hidden"):
            if name in rows[0]:
                lines.append([group, name, str(len(rows)), *_cells(rows, name, len(factors))])
    head = ["data", "reference", "cases", *(f"× {factor:g}" for factor in factors)]
    text.append(table([*head, "chosen", "best"], lines))
    if "seconds" in results:
        seconds = {name: statistics.median(each) for name, each in results["seconds"].items()}
        text.append(
            f"The choice multiplies the time by {seconds['chosen'] / seconds['given']:.2f} "
            f"(medians of {args.turns} turns).\n"
        )
    return "\n".join(text)


def _verdict(rows: list[dict[str, Any]]) -> str:
    """Return how the chosen factor changes the PSNR against noiseless references, in words."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        if "noiseless" in row:
            psnr = row["noiseless"]["psnr"]
            groups.setdefault(row["group"], []).append(psnr[row["chosen"]] - psnr[0])
    if not groups:
        return ""
    means = [statistics.mean(values) for values in groups.values()]
    return (
        "Against noiseless references, the factor chosen by held-out samples changes the mean PSNR "
        f"by\n{span(means)} dB compared with the estimated noise level alone (× 1).\n"
    )


def _cells(rows: list[dict[str, Any]], name: str, number: int) -> list[str]:
    """Return mean scores at each factor, at the chosen ones and at the best ones."""
    if name == "hidden":
        picks = [[row[name][index] for row in rows] for index in range(number)]
        picks.append([row[name][row["chosen"]] for row in rows])
        picks.append([min(row[name]) for row in rows])
        return [f"{statistics.mean(each):.4f}" for each in picks]
    chosen = [[index] * len(rows) for index in range(number)]
    chosen.append([row["chosen"] for row in rows])
    chosen.append([int(np.argmax(row[name]["psnr"])) for row in rows])

    def mean(metric: str, which: list[int]) -> float:
        values = [row[name][metric][index] for row, index in zip(rows, which, strict=True)]
        return statistics.mean(values)

    return [f"{mean('psnr', which):.2f} / {mean('ssim', which):.3f}" for which in chosen]


def _explanation(args: argparse.Namespace) -> str:
    return f"""\
Plug-and-play ADMM, {args.steps} steps, at the estimated noise level of the scan times each factor
(columns “×”); a smaller factor weakens the prior. “Chosen” uses the factor selected by held-out
k-space samples, as `noise_std="auto"` does; “best” the factor with the highest PSNR, which a user
cannot know. Cells show the mean PSNR in dB / SSIM on magnitudes, for the T1 brain the NRMSE of
hidden samples. Phantoms and people: {args.resolution}², {args.coils} coils, true coil maps, 1 %
noise, uniform1d masks. A noisy reference rewards an image that keeps the measured noise, as a
weaker prior does; only rows with a noiseless reference show a real gain.
"""


if __name__ == "__main__":
    main()
