"""Export and validation of averaged weights as the pipeline that users load."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from accelerate import Accelerator
from diffusers import SchedulerMixin
from torch import nn

from ctxrecon.priors.tokenizer import forget_padding
from ctxrecon.training.card import About, model_card
from ctxrecon.training.config import TrainingConfig
from ctxrecon.training.folders import folder_beside
from ctxrecon.training.log import log_validation
from ctxrecon.training.loop import Weights

P = TypeVar("P")


class HeldOut(Protocol):
    """Scans that are not used for training."""

    def validate(self, pipe: Any, picture: Path) -> dict[str, float]:
        """Return scores of the pipeline on the scans, and draw an example into ``picture``."""


def with_weights(pipe: P, weights: Weights) -> P:
    """Return a copy of a pipeline with the given network weights, ready to be called.

    Args:
        pipe: Diffusers pipeline.
        weights: Weights of each network under its name in the pipeline; missing ones, such as
            those of a frozen part, are unchanged.
    """
    given: Any = pipe
    copied = copy.copy(given)
    for name, part in given.components.items():
        if not isinstance(part, nn.Module | SchedulerMixin):
            continue
        part = copy.deepcopy(part)
        prefix = f"{name}."
        own = {key.removeprefix(prefix): v for key, v in weights.items() if key.startswith(prefix)}
        if own:
            part.load_state_dict({**part.state_dict(), **own})
        if isinstance(part, nn.Module):
            part.eval()
        copied.register_modules(**{name: part})
    copied.set_progress_bar_config(disable=True)
    return copied


class TrainedPipeline:
    """Export and validation callbacks of the training loop.

    Args:
        config: Configuration of the run.
        accelerator: Accelerator of the run.
        pipe: Pipeline whose parts are trained. It is copied, since the parts may later be sharded
            over processes; construct this object before training.
        about: Description for the model card.
        held_out: Function that creates the validation scans when they are first needed.
        half: If true, the pipeline is written in half precision.
    """

    def __init__(
        self,
        config: TrainingConfig,
        accelerator: Accelerator,
        pipe: Any,
        about: About,
        held_out: Callable[[], HeldOut],
        *,
        half: bool = False,
    ) -> None:
        self.config, self.accelerator, self.about = config, accelerator, about
        self.pipe = with_weights(pipe, {})
        self.held_out, self.half = held_out, half

    @cached_property
    def scans(self) -> HeldOut:
        """Validation scans."""
        return self.held_out()

    def export(self, weights: Weights) -> None:
        """Write the pipeline with its model card, atomically."""
        pipe = with_weights(self.pipe, weights)
        for part in pipe.components.values():
            if self.half and isinstance(part, nn.Module):
                part.half()
        forget_padding(getattr(pipe, "tokenizer", None))
        card = model_card(self.config, sys.argv, self.about)
        with folder_beside(self.config.output_dir / "pipeline") as beside:
            pipe.save_pretrained(beside, safe_serialization=True)
            # A command line may contain bytes that are not text.
            (beside / "README.md").write_text(card, encoding="utf-8", errors="backslashreplace")

    def validate(self, step: int, weights: Weights) -> None:
        """Log the scores of the pipeline on held-out scans, with a picture."""
        folder = self.config.output_dir
        picture = folder / f"validation-{step}.png"
        pipe = with_weights(self.pipe, weights).to(self.accelerator.device)
        scores = self.scans.validate(pipe, picture)
        log_validation(self.accelerator, folder, step, scores, picture)
