"""Images per second of the training loop of ``train_prior.py`` and of diffusers' loop.

    python -m benchmarks.speed.training --bank runs/bank.npz --mixed_precision bf16

Network, batch, precision, optimizer and machine are the same; all loops run in one process, block
by block in turn. diffusers' loop is the body of its
``examples/text_to_image/train_text_to_image.py`` with a frozen text encoder and without the VAE
(the prior works on pixels), fed with batches in memory. Our loop is timed with the same batches,
with phantom slices that workers draw and the training device renders, and with shards of prepared
slices read from disk. The differences are the cost of the data; the rendering is also timed alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from accelerate import Accelerator
from accelerate.utils import send_to_device
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.arguments import RESULTS, parse, study_parser
from benchmarks.common.record import write_record
from ctxrecon.datasets import ShardSlices, write_shard
from ctxrecon.evaluation import table
from ctxrecon.phantom import AnatomyBank, PhantomSlices
from ctxrecon.pipelines import build_pipeline
from ctxrecon.training import TrainingConfig, build_accelerator, train
from ctxrecon.training.prior import Prior, PriorSamples
from ctxrecon.training.slices import PreparedSlices

DIFFUSERS, MEMORY, PHANTOM, SHARDS = (
    "diffusers' loop, batches in memory",
    "ours, batches in memory",
    "ours, phantom on the fly",
    "ours, prepared shards",
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = study_parser("speed.training", __doc__)
    add, precisions = parser.add_argument, ("no", "bf16", "fp16")
    add("--bank", type=Path, required=True, help="Bank of anatomies.")
    add("--output_dir", type=Path, default=RESULTS, help="Folder of the results.")
    add("--resolution", type=int, default=128, help="Matrix size.")
    add("--batch_size", type=int, default=8, help="Batch size.")
    add("--mixed_precision", choices=precisions, default="no", help="Mixed precision.")
    add("--workers", type=int, default=0, help="Worker processes of the data loader.")
    add("--steps", type=int, default=8, help="Steps of a block.")
    add("--blocks", type=int, default=4, help="Blocks of each loop.")
    return parse(parser, argv)


class InMemory:
    """Rendered batches of a few steps, kept in memory."""

    def __init__(self, samples: PriorSamples, batch_size: int, count: int) -> None:
        self.size = batch_size
        self.batches = [
            samples.render(
                samples.collate([samples[0, step * batch_size + k] for k in range(batch_size)])
            )
            for step in range(count)
        ]

    def __getitem__(self, place: tuple[int, int]) -> int:
        return place[1] // self.size % len(self.batches)

    def collate(self, items: list[int]) -> dict[str, Tensor]:
        """Return the batch of these samples."""
        return self.batches[items[0]]


class Clock:
    """Mean time between the calls of a block, of which the first is not counted.

    A GPU works behind the calls. It is therefore awaited at both ends of the block only, so that
    it is never idle in between.
    """

    def __init__(self, steps: int) -> None:
        self.steps, self.calls, self.began, self.seconds = steps, 0, 0.0, 0.0

    def __call__(self, *_: Any) -> None:
        """Count one call."""
        self.calls += 1
        if self.calls in (2, self.steps + 2):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            now = time.perf_counter()
            self.began, self.seconds = now, (now - self.began) / self.steps


def our_step(samples: Any, args: argparse.Namespace, folder: Path) -> float:
    """Measure the mean seconds between network calls in :func:`ctxrecon.training.train`."""
    pipe = build_pipeline(sample_size=args.resolution)
    prior = Prior(pipe, train_text_encoder=False)
    clock = Clock(args.steps)
    prior.register_forward_pre_hook(clock)
    config = TrainingConfig(
        output_dir=Path(tempfile.mkdtemp(dir=folder)) / "run",
        train_batch_size=args.batch_size,
        max_train_steps=args.steps + 2,
        learning_rate=1e-4,
        mixed_precision=args.mixed_precision,
        checkpointing_steps=1000000,
        dataloader_num_workers=args.workers,
        report_to="none",
    )
    train(
        config,
        build_accelerator(config),
        prior.train(),
        samples,
        export=lambda _: None,
        render=samples.render if isinstance(samples, PriorSamples) else None,
    )
    return clock.seconds


def diffusers_step(samples: InMemory, args: argparse.Namespace) -> float:
    """Measure the mean seconds of a step of diffusers' loop."""
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    pipe = build_pipeline(sample_size=args.resolution)
    unet, text_encoder = pipe.unet.train(), pipe.text_encoder.requires_grad_(False)
    scheduler: Any = pipe.scheduler
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, weight_decay=1e-2)
    lr_scheduler = get_scheduler(
        "cosine", optimizer, num_warmup_steps=0, num_training_steps=args.steps + 2
    )
    ema = EMAModel(unet.parameters(), model_cls=type(unet), model_config=unet.config)
    unet, optimizer, lr_scheduler = accelerator.prepare(unet, optimizer, lr_scheduler)
    text_encoder.to(accelerator.device)
    ema.to(accelerator.device)
    clock = Clock(args.steps)
    for step in range(args.steps + 2):
        batch = samples.batches[step % len(samples.batches)]
        clock()
        batch = {name: value.to(accelerator.device) for name, value in batch.items()}
        with accelerator.accumulate(unet):
            images = batch["image"]
            noise = torch.randn_like(images)
            timesteps = torch.randint(
                0, scheduler.config.num_train_timesteps, (len(images),), device=images.device
            ).long()
            noisy = scheduler.add_noise(images, noise, timesteps)
            states = text_encoder(batch["tokens"], return_dict=False)[0]
            target = scheduler.get_velocity(images, noise, timesteps)
            prediction = unet(noisy, timesteps, states, return_dict=False)[0]
            loss = functional.mse_loss(prediction.float(), target.float(), reduction="mean")
            accelerator.gather(loss.repeat(len(images))).mean().item()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
        if accelerator.sync_gradients:
            ema.step(unet.parameters())
    return clock.seconds


def rendering_rate(samples: PriorSamples, args: argparse.Namespace) -> float:
    """Measure the images per second of rendering alone, on the training device (median)."""
    device = Accelerator(mixed_precision=args.mixed_precision).device
    batch = samples.collate([samples[0, number] for number in range(args.batch_size)])
    batch = send_to_device(batch, device)
    times = []
    for _ in range(args.blocks * args.steps):
        began = time.perf_counter()
        samples.render(batch)["image"].sum().item()
        times.append(time.perf_counter() - began)
    return args.batch_size / float(np.median(times))


def loops(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Callable[[], float]]]:
    """Yield each loop with its name."""
    pipe = build_pipeline(sample_size=args.resolution)
    slices = PhantomSlices(AnatomyBank.load(args.bank), resolution=args.resolution)
    shards = folder / "shards"
    shards.mkdir()
    items: list[dict[str, Any]] = [slices[number] for number in range(64)]
    write_shard(
        shards / "phantom.safetensors",
        np.stack([np.asarray(item["image"]) for item in items]),
        [item["metadata"] for item in items],
        source=args.bank,
    )

    def samples(source: Any) -> PriorSamples:
        return PriorSamples([source], [1.0], pipe.tokenizer, [args.resolution], 1000)

    ready = InMemory(samples(slices), args.batch_size, 4)
    yield DIFFUSERS, lambda: diffusers_step(ready, args)
    yield MEMORY, lambda: our_step(ready, args, folder)
    yield PHANTOM, lambda: our_step(samples(slices), args, folder)
    stored = samples(PreparedSlices(ShardSlices(shards)))
    yield SHARDS, lambda: our_step(stored, args, folder)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        every = dict(loops(args, Path(folder)))
        phantom = PhantomSlices(AnatomyBank.load(args.bank))
        tokenizer = build_pipeline(sample_size=args.resolution).tokenizer
        samples = PriorSamples([phantom], [1.0], tokenizer, [args.resolution], 1000)
        rendered = rendering_rate(samples, args)
        for _ in tqdm(range(args.blocks), desc="blocks", unit="block"):
            for name, loop in every.items():
                seconds.setdefault(name, []).append(loop())
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    rates = {name: args.batch_size / value for name, value in medians.items()}
    results: dict[str, Any] = {
        "images_per_second": rates,
        "rendered_per_second": rendered,
        "device": str(Accelerator(mixed_precision=args.mixed_precision).device),
        "seconds_per_step": seconds,
        "settings": {
            name: getattr(args, name)
            for name in ("resolution", "batch_size", "mixed_precision", "workers", "steps")
        },
    }
    write_record(args.output_dir / "training_speed.json", results, args, seed=0)
    print(
        table(
            ["loop", "images per second", "relative to diffusers' loop"],
            [[name, f"{r:.2f}", f"{r / rates[DIFFUSERS]:.2f}"] for name, r in rates.items()],
        )
    )
    print(f"rendering alone: {rendered:.0f} images per second")


if __name__ == "__main__":
    main()
