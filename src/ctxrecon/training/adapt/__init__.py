"""Adaptation of a prior to a lab's own scans."""

from ctxrecon.training.adapt.run import Adaptation, adapt_prior
from ctxrecon.training.adapt.scoring import Scores

__all__ = ["Adaptation", "Scores", "adapt_prior"]
