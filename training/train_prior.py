"""Train the diffusion prior on phantom slices, with its text encoder.

    accelerate launch training/train_prior.py --bank runs/bank.npz --output_dir runs/prior \
        --resolution 128 --train_batch_size 16 --max_train_steps 2000 --mixed_precision bf16

Every sample's image, noise, timestep and dropout follow from the seed and its number, so a run
that is resumed goes on as if it had not stopped, and several processes see what one would.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ctxrecon.phantom import AnatomyBank, PhantomSlices
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.priors.factory import build_scheduler, build_text_encoder, build_unet
from ctxrecon.priors.tokenizer import build_tokenizer, check_prompt_length
from ctxrecon.training import (
    denoising_loss,
    drop_metadata,
    latest_checkpoint,
    load_state,
    prune_checkpoints,
    save_state,
    spread_timestep,
)


def parse_args() -> argparse.Namespace:
    """Command line, named as in the diffusers training scripts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=Path, required=True, help="from training/build_bank.py")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--train_batch_size", type=int, default=16, help="on each process")
    parser.add_argument("--max_train_steps", type=int, required=True)
    parser.add_argument("--learning_rate", type=float, default=4e-4)
    parser.add_argument("--lr_warmup_steps", type=int, default=100)
    parser.add_argument("--ema_decay", type=float, default=0.999)
    parser.add_argument("--mixed_precision", choices=("no", "bf16", "fp16"), default="no")
    parser.add_argument("--checkpointing_steps", type=int, default=200)
    parser.add_argument("--checkpoints_total_limit", type=int, default=2)
    parser.add_argument("--resume_from_checkpoint", help="a checkpoint folder, or 'latest'")
    parser.add_argument("--dataloader_num_workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


class Prior(nn.Module):
    """U-Net and text encoder as one module, so that both train under one wrapper."""

    def __init__(self, unet: nn.Module, text_encoder: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, alphas_cumprod: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """The denoising loss of each sample.

        The error of v falls with the noise as ``1/√(1−ᾱ)``; that factor is taken out, so that
        every noise level weighs the same, as the learned weights of Karras et al.
        (arXiv:2312.02696) would have it.
        """
        states = self.text_encoder(batch["tokens"]).last_hidden_state
        losses = denoising_loss(
            self.unet,
            alphas_cumprod,
            batch["image"],
            states,
            prediction_type="v_prediction",
            timesteps=batch["timestep"],
            noise=batch["noise"],
        )
        return (1 - alphas_cumprod[batch["timestep"]]).sqrt() * losses


class TrainingBatches:
    """Collates items; what is random about a sample follows from the seed and its number."""

    def __init__(self, data: PhantomSlices, tokenizer: object, seed: int, num_steps: int) -> None:
        self.data, self.tokenizer, self.seed, self.num_steps = data, tokenizer, seed, num_steps

    def __call__(self, numbers: list[int]) -> dict[str, Tensor]:
        """Samples of these numbers: image, noise, timestep and tokens."""
        images, noises, timesteps, prompts = [], [], [], []
        for number in numbers:
            item = self.data[number]
            generator = torch.Generator().manual_seed(self.seed * 2**40 + number)
            images.append(item["image"])
            noises.append(torch.randn(item["image"].shape, generator=generator))
            timesteps.append(spread_timestep(self.seed + number, self.num_steps))
            prompts.append(drop_metadata(item["metadata"], generator))
        check_prompt_length(self.tokenizer, prompts)
        tokens = self.tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
        return {
            "image": torch.stack(images),
            "noise": torch.stack(noises),
            "timestep": torch.tensor(timesteps),
            "tokens": tokens,
        }


def sample_numbers(args: argparse.Namespace, start: int, accelerator: Accelerator) -> Iterator:
    """Numbers of this process's samples, a list for each step from ``start``."""
    size, world = args.train_batch_size, accelerator.num_processes
    for step in range(start, args.max_train_steps):
        first = (step * world + accelerator.process_index) * size
        yield list(range(first, first + size))


def learning_rate(args: argparse.Namespace, step: int) -> float:
    """Linear warm-up, then a cosine from the full rate to 2 % of it."""
    warmup = min(1.0, (step + 1) / max(args.lr_warmup_steps, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * step / args.max_train_steps))
    return args.learning_rate * warmup * (0.02 + 0.98 * cosine)


def export(args: argparse.Namespace, prior: Prior, average: list[Tensor], tokenizer) -> None:
    """Write the averaged weights as a pipeline folder, in half precision."""
    unet = build_unet(sample_size=args.resolution)
    text_encoder = build_text_encoder(len(tokenizer), **special_tokens(tokenizer))
    averaged = Prior(unet, text_encoder)
    with torch.no_grad():
        for parameter, value in zip(averaged.parameters(), average, strict=True):
            parameter.copy_(value)
    pipe = ContextMRIPipeline(
        unet=unet.half(),
        scheduler=build_scheduler(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
    )
    beside, final = args.output_dir / ".pipeline.partial", args.output_dir / "pipeline"
    shutil.rmtree(beside, ignore_errors=True)
    pipe.save_pretrained(beside, safe_serialization=True)
    shutil.rmtree(final, ignore_errors=True)
    beside.rename(final)


def special_tokens(tokenizer) -> dict[str, int]:
    """The ids that the text encoder's configuration names."""
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def main() -> None:
    """Arguments, data, model, loop."""
    args = parse_args()
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    if accelerator.is_main_process:
        args.output_dir.mkdir(parents=True, exist_ok=True)
        config = {key: str(value) for key, value in vars(args).items()}
        (args.output_dir / "config.json").write_text(json.dumps(config, indent=2))

    tokenizer = build_tokenizer()
    scheduler = build_scheduler()
    alphas_cumprod = scheduler.alphas_cumprod.to(accelerator.device)
    unet = build_unet(sample_size=args.resolution, seed=args.seed)
    text_encoder = build_text_encoder(len(tokenizer), seed=args.seed, **special_tokens(tokenizer))
    prior = Prior(unet.to(memory_format=torch.channels_last), text_encoder)
    average = [parameter.detach().clone() for parameter in prior.parameters()]
    average = [value.to(accelerator.device) for value in average]
    optimizer = torch.optim.AdamW(prior.parameters(), lr=args.learning_rate, weight_decay=1e-3)
    start = 0
    if args.resume_from_checkpoint:
        wanted = args.resume_from_checkpoint
        folder = latest_checkpoint(args.output_dir) if wanted == "latest" else Path(wanted)
        start = load_state(
            folder, modules={"prior": prior}, averages={"prior": average}, optimizer=optimizer
        )
    data = PhantomSlices(AnatomyBank.load(args.bank), resolution=args.resolution, seed=args.seed)
    collate = TrainingBatches(data, tokenizer, args.seed, len(alphas_cumprod))
    loader = DataLoader(
        list(sample_numbers(args, start, accelerator)),
        batch_size=None,
        collate_fn=collate,
        num_workers=args.dataloader_num_workers,
    )
    model, optimizer = accelerator.prepare(prior, optimizer)
    parameters = list(accelerator.unwrap_model(model).parameters())

    log = args.output_dir / "log.jsonl"
    bar = tqdm(total=args.max_train_steps, initial=start, disable=not accelerator.is_main_process)
    began, running = time.monotonic(), 0.0
    for step, batch in enumerate(loader, start):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args, step)
        batch = {name: value.to(accelerator.device) for name, value in batch.items()}
        with accelerator.autocast():
            loss = model(alphas_cumprod, batch).mean()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        decay = min(args.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
        value = accelerator.reduce(loss.detach(), reduction="mean").item()
        running = value if step == start else 0.98 * running + 0.02 * value
        bar.update()
        bar.set_postfix(loss=f"{running:.4f}")
        done = step + 1
        if not accelerator.is_main_process:
            continue
        if done % 20 == 0:
            seconds = (time.monotonic() - began) / (done - start)
            line = {"step": done, "loss": round(running, 5), "seconds_per_step": round(seconds, 3)}
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
        if done % args.checkpointing_steps == 0 or done == args.max_train_steps:
            save_state(
                args.output_dir,
                done,
                modules={"prior": accelerator.unwrap_model(model)},
                averages={"prior": average},
                optimizer=optimizer,
            )
            prune_checkpoints(args.output_dir, args.checkpoints_total_limit)
            export(args, accelerator.unwrap_model(model), average, tokenizer)
    accelerator.end_training()


if __name__ == "__main__":
    main()
