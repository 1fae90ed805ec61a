"""Ablations of the prior's training: which choices pay on people and on the phantom?

    python -m benchmarks.ablations --bank runs/bank.npz --train_people data/people \
        --people data/held_out --label_volumes DIR/training_seg_1[3-6].nii.gz

Priors of the shipped size are trained from new weights with an equal number of images, each with
one choice changed: the share of real images, the network's target, the noise of the phantom's
images, the matrix sizes and the prompts. They then reconstruct slices of people that none of them
has seen, and phantom scans outside the bank, by the default solver, with their prompt and without.
``train_people`` and ``people`` are folders written by ``ctxrecon prepare images`` with
``--leave-out`` and ``--only``. Stopped trainings resume. With ``--keep``, entries in the record in
``--output_dir`` are kept unless ``--entries`` names them; the record must be of the same bank,
people and label volumes.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

import torch
from tqdm.auto import tqdm

from benchmarks.ablations.entries import SETTINGS, chosen_entries, data_names, parse_args
from benchmarks.ablations.report import page
from benchmarks.common.arguments import recorded_options, settings_of
from benchmarks.common.held_out import held_out_scans, scan_seed, undersample
from benchmarks.common.people import choose_slices, full_scan
from benchmarks.common.record import read_record, write_study
from benchmarks.common.training import slug, train_run
from ctxrecon.datasets import ShardSlices
from ctxrecon.errors import InputError
from ctxrecon.metrics import image_metrics
from ctxrecon.pipelines import ContextMRIPipeline, load_prior
from ctxrecon.scan import Scan

Scans = dict[str, list[Scan]]
"""Undersampled scans of ``"people"`` and of the ``"phantom"``."""


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv, __doc__)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    scans, people = test_scans(args)
    kept = measured_before(args, people)
    results: dict[str, Any] = {"settings": settings_of(args), "people": people, "entries": kept}
    for entry in tqdm(chosen_entries(args, kept), unit="training"):
        folder = args.runs / slug(entry.title)
        train_run("train_prior.py", entry.command(args), folder, args.steps)
        pipe = load_prior(folder / "pipeline")
        pipe.set_progress_bar_config(disable=True)
        scores = {name: rate(pipe, found, args) for name, found in scans.items()}
        results["entries"][entry.title] = {**asdict(entry), "psnr": scores}
        # Keep finished entries if a later one fails.
        write_study(args.output_dir / "ablations.json", results, args, page)


def measured_before(args: argparse.Namespace, people: list[str]) -> dict[str, Any]:
    """Return the entries of the record in the output folder; none without ``--keep``.

    Args:
        args: Options of the study.
        people: Person of each slice of the test.

    Raises:
        InputError: If the record was measured with other settings, on other people, or with data
            of other names.
    """
    path = args.output_dir / "ablations.json"
    if not args.keep or not path.is_file():
        return {}
    record = read_record(path)
    results, settings = record["results"], settings_of(args)
    options = parse_args(recorded_options(record["command"]))
    before = {
        "people": results["people"],
        **data_names(options),
        **{one: results["settings"][one] for one in SETTINGS},
    }
    now = {"people": people, **data_names(args), **{one: settings[one] for one in SETTINGS}}
    if differing := [name for name in now if before[name] != now[name]]:
        raise InputError(
            f"expected a record with the same {', '.join(differing)} in {path}: remove it or "
            "choose another --output_dir"
        )
    entries: dict[str, Any] = results["entries"]
    print(f"kept from {path}: {', '.join(entries)}")
    return entries


def test_scans(args: argparse.Namespace) -> tuple[Scans, list[str]]:
    """Return the undersampled test scans, and the person of each slice of people."""
    slices = ShardSlices(args.people)
    chosen = choose_slices(slices, args.test_scans, args.seed)
    people = [full_scan(slices, one, args.seed, size=args.resolution) for one in chosen]
    phantom = held_out_scans(args.test_scans, args.resolution, args.label_volumes, args.seed)
    found = {"people": people, "phantom": [scan for _, scan in phantom]}
    measured = {
        name: [
            undersample(scan, args.acceleration, scan_seed(args.seed, number), true_maps=True)
            for number, scan in enumerate(full)
        ]
        for name, full in found.items()
    }
    return measured, [one.person for one in chosen]


def rate(pipe: ContextMRIPipeline, scans: list[Scan], args: argparse.Namespace) -> dict[str, Any]:
    """Return the PSNR of every scan with its prompt and without it."""
    found: dict[str, list[float]] = {"prompt": [], "none": []}
    for number, scan in enumerate(scans):
        assert scan.target is not None
        for name, values in found.items():
            output: Any = pipe(
                scan.kspace,
                scan.mask,
                scan.metadata[0].to_prompt() if name == "prompt" else None,
                coil_maps=scan.coil_maps,
                guidance_scale=1.0 if name == "prompt" else 0.0,
                num_inference_steps=args.inference_steps,
                generator=torch.Generator().manual_seed(scan_seed(args.seed, number)),
            )
            values.append(float(image_metrics(output.images.cpu(), scan.target)["psnr"][0]))
    return found


if __name__ == "__main__":
    main()
