"""Pipelines: reconstruct images from k-space, a sampling mask and a prompt."""

from __future__ import annotations

from ctxrecon.loading.components import load_text_encoder
from ctxrecon.measurement import Measurement, prepare_measurement
from ctxrecon.output import ReconstructionOutput, TextToImageOutput, convert_images
from ctxrecon.pipelines.baseline import BaselinePipeline
from ctxrecon.pipelines.context_mri import ContextMRIPipeline, build_pipeline, load_prior
from ctxrecon.pipelines.cross_modal import (
    CrossModalPipeline,
    CrossModalReconstruction,
    load_cross_modal,
)
from ctxrecon.pipelines.joint import JointOutput, JointPipeline, load_joint
from ctxrecon.pipelines.reconstruction import ReconstructionPipeline, load_reconstructor
from ctxrecon.pipelines.task import TaskOutput, TaskPipeline, load_task
from ctxrecon.pipelines.text_to_image import TextToImagePipeline

__all__ = [
    "BaselinePipeline",
    "ContextMRIPipeline",
    "CrossModalPipeline",
    "CrossModalReconstruction",
    "JointOutput",
    "JointPipeline",
    "Measurement",
    "ReconstructionOutput",
    "ReconstructionPipeline",
    "TaskOutput",
    "TaskPipeline",
    "TextToImageOutput",
    "TextToImagePipeline",
    "build_pipeline",
    "convert_images",
    "load_cross_modal",
    "load_joint",
    "load_prior",
    "load_reconstructor",
    "load_task",
    "load_text_encoder",
    "prepare_measurement",
]
