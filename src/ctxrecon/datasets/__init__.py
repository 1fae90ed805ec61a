"""Preparation of training sets from raw volumes, one shard of slices per volume, and a reader."""

from ctxrecon.datasets.fastmri import FastMRISource
from ctxrecon.datasets.images import ImageSource
from ctxrecon.datasets.labels import LabelSource
from ctxrecon.datasets.measured import MeasuredSource
from ctxrecon.datasets.people import People, read_people
from ctxrecon.datasets.prepare import Summary, prepare_shards
from ctxrecon.datasets.shards import (
    ShardInfo,
    ShardSlices,
    check_complex_slices,
    read_shard_info,
    shard_files,
    write_shard,
)
from ctxrecon.datasets.skmtea import SKMTEASource
from ctxrecon.datasets.source import VolumeSource

__all__ = [
    "FastMRISource",
    "ImageSource",
    "LabelSource",
    "MeasuredSource",
    "People",
    "SKMTEASource",
    "ShardInfo",
    "ShardSlices",
    "Summary",
    "VolumeSource",
    "check_complex_slices",
    "prepare_shards",
    "read_people",
    "read_shard_info",
    "shard_files",
    "write_shard",
]
