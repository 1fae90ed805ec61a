"""Training of the text-conditioned diffusion prior."""

from ctxrecon.training.prior.build import starting_point
from ctxrecon.training.prior.config import PriorConfig
from ctxrecon.training.prior.data import PriorSamples, sources
from ctxrecon.training.prior.objective import Prior, denoising_loss, loss_weights, spread_timestep
from ctxrecon.training.prior.run import main, parse_args, train_prior
from ctxrecon.training.prior.validation import HeldOutScans

__all__ = [
    "HeldOutScans",
    "Prior",
    "PriorConfig",
    "PriorSamples",
    "denoising_loss",
    "loss_weights",
    "main",
    "parse_args",
    "sources",
    "spread_timestep",
    "starting_point",
    "train_prior",
]
