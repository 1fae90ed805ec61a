"""Accelerated MRI reconstruction with metadata-prompted diffusion priors."""

__version__ = "0.1.0"
