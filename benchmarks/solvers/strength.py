r"""How far to trust the prior: by the noise alone, or by samples that are held back.

    python -m benchmarks.solvers.strength --output_dir benchmarks/results \
        [--data DIR] [--people DIR]

Plug-and-play ADMM at the noise level that is estimated from the scan times each of the factors of
``ctxrecon.inference.weighting``, the factor that held-back samples choose there, as
``noise_std="auto"`` does, and the factor that the reference would choose, which nobody has.
Held-out phantom scans; the two real scans of ``benchmarks.real_scans`` where ``--data`` says where
they are; and slices of people whom the prior has not seen, from a folder of ``ctxrecon prepare
images`` (``--people``), with a made-up phase, simulated coils and 1 % noise, as they are and with
noise left in the reference, as that of fastMRI has it.
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
"""Of phantoms and people, relative to the 99 % quantile of the image."""


class Case(NamedTuple):
    """A measurement, and what its image is compared with.

    Attributes:
        group: of cases that belong together.
        kspace: ``(1, coils, ny, nx)``, zero outside the mask.
        mask: ``(1, 1, ny, nx)`` bool.
        coil_maps: ``(1, coils, ny, nx)``.
        prompt: of the slice.
        references: by name, ``(1, ny, nx)``.
        hidden: k-space and mask of samples to predict where there is no reference.
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
    parser.add_argument("--data", type=Path, help="folder of the two real scans")
    parser.add_argument("--people", type=Path, help="folder of a set of magnitude images")
    parser.add_argument("--scans", type=int, default=4, help="phantoms, brains and knees by turns")
    parser.add_argument("--slices", type=int, default=4, help="people, one slice of each")
    parser.add_argument("--left_noise", type=float, default=0.03, help="in people's references")
    parser.add_argument("--accelerations", type=float, nargs="+", default=[4.0, 8.0])
    parser.add_argument("--masks", type=int, default=1, help="of the real T2 scan")
    parser.add_argument("--coils", type=int, default=8, help="of phantoms and people")
    parser.add_argument("--resolution", type=int, default=256, help="of phantoms and people")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--turns", type=int, default=3, help="of the timing; 0 leaves it out")
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
    """All cases, made one by one."""
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
    """Scores at every factor, in their order, and the index of the one that was chosen."""
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
    """Seconds of the pipeline at a noise level that is given, and with the choice."""
    case = phantom_case(args, 0, args.accelerations[0])
    call: dict[str, Any] = {"coil_maps": case.coil_maps, "num_inference_steps": args.steps}

    def run(noise_std: float | str) -> object:
        return pipe(case.kspace, case.mask, case.prompt, noise_std=noise_std, **call)

    return timed({"given": lambda: run(NOISE), "chosen": lambda: run("auto")}, args.turns)


def phantom_case(args: argparse.Namespace, number: int, acceleration: float) -> Case:
    """A held-out phantom."""
    seed = scan_seed(args.seed, number)
    generator = torch.Generator().manual_seed(seed)
    anatomy = held_out_anatomy(("brain", "knee")[number % 2], seed, args.resolution, generator)
    size = (args.resolution, args.resolution)
    scan = phantom_scan(anatomy, shape=size, num_coils=args.coils, snr=None, generator=generator)
    assert scan.target is not None
    assert scan.coil_maps is not None
    prompt = scan.metadata[0].to_prompt()
    return _measured("phantom", scan.target, {}, scan.coil_maps, prompt, acceleration, seed)


def person_case(args: argparse.Namespace, number: int, acceleration: float, left: float) -> Case:
    """A slice from the middle of those of one person, with noise ``left`` in the reference."""
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
    generator = torch.Generator().manual_seed(number)
    maps = simulate_coil_maps(args.coils, (ny, nx), generator=generator)
    noisy = image + left * torch.randn(image.shape, dtype=torch.complex64, generator=generator)
    prompt = item["metadata"].to_prompt(shards.prompt_form)
    references = {"noiseless": image} if left else {}
    group = f"people, {left:.0%} noise left" if left else "people"
    return _measured(group, noisy, references, maps, prompt, acceleration, number)


def _measured(
    group: str,
    image: Tensor,
    references: dict[str, Tensor],
    coil_maps: Tensor,
    prompt: str,
    acceleration: float,
    seed: int,
) -> Case:
    """Undersampled and noisy k-space of an image; without ``references`` it is its own."""
    generator = torch.Generator().manual_seed(seed)
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
    """The T2 brain with a mask of its own."""
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
    """The T1 brain, of whose samples one in ten is hidden."""
    kspace = load(args.data / T1_FILE)
    sampled = (kspace != 0).any(dim=1, keepdim=True)
    hidden = hold_out(sampled, torch.Generator().manual_seed(args.seed))
    mask = sampled & ~hidden
    maps = estimate_coil_maps(kspace * mask, mask, num_maps=1)
    return Case("real T1 brain", kspace * mask, mask, maps, "Brain, T1", {}, (kspace, hidden))


def page(record: Record) -> str:
    """Explanation and table."""
    args, results = parse_args(recorded_options(record["command"])), record["results"]
    factors = results["settings"]["factors"]
    text = ["# Trust in the prior\n", _explanation(args)]
    lines = []
    for group in dict.fromkeys(row["group"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["group"] == group]
        for name in ("noiseless", "reference", "hidden"):
            if name in rows[0]:
                lines.append([group, name, str(len(rows)), *_cells(rows, name, len(factors))])
    head = ["", "compared with", "cases", *(f"× {factor:g}" for factor in factors)]
    text.append(table([*head, "chosen", "best"], lines))
    if "seconds" in results:
        seconds = {name: statistics.median(each) for name, each in results["seconds"].items()}
        text.append(
            f"\nTime with the choice over that without: {seconds['chosen'] / seconds['given']:.2f}"
            f" (medians of {args.turns} turns)."
        )
    return "\n".join(text) + "\n"


def _cells(rows: list[dict[str, Any]], name: str, number: int) -> list[str]:
    """Mean scores at each factor, at those that were chosen, and at the best."""
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
Plug-and-play ADMM, {args.steps} steps, at the noise level that is estimated from the scan times
each factor; with the factor that held-back samples choose ("chosen", what `noise_std="auto"`
takes); and with that of the highest PSNR ("best", which only this comparison can know). PSNR in dB
and SSIM of magnitudes; of the T1 brain the NRMSE of hidden samples. Phantoms and people:
{args.resolution}², {args.coils} coils, true coil maps, 1 % noise, uniform1d masks. References with
noise reward an image that keeps the noise of what was measured, which a weaker prior does: only
what is noiseless says what is gained.
"""


if __name__ == "__main__":
    main()
