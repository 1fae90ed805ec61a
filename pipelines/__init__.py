"""What a user calls: k-space, mask and prompt in, reconstruction out."""

from __future__ import annotations

from ctxrecon.measurement import Measurement, prepare_measurement
from ctxrecon.output import ReconstructionOutput, convert_images
from ctxrecon.pipelines.baseline import BaselinePipeline
from ctxrecon.pipelines.context_mri import ContextMRIPipeline
from ctxrecon.pipelines.joint import JointOutput, JointPipeline
from ctxrecon.pipelines.loading import (
    build_pipeline,
    load_joint,
    load_pipeline,
    load_prior,
    load_reconstructor,
    load_text_encoder,
)
from ctxrecon.pipelines.reconstruction import ReconstructionPipeline

__all__ = [
    "BaselinePipeline",
    "ContextMRIPipeline",
    "JointOutput",
    "JointPipeline",
    "Measurement",
    "ReconstructionOutput",
    "ReconstructionPipeline",
    "build_pipeline",
    "convert_images",
    "load_joint",
    "load_pipeline",
    "load_prior",
    "load_reconstructor",
    "load_text_encoder",
    "prepare_measurement",
]
