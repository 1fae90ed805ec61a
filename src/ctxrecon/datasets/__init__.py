"""Training sets from raw volumes: one shard of prepared slices for each, and their reader."""

from ctxrecon.datasets.fastmri import FastMRISource
from ctxrecon.datasets.labels import LabelSource
from ctxrecon.datasets.prepare import Summary, prepare_shards
from ctxrecon.datasets.shards import ShardInfo, ShardSlices, read_shard_info, write_shard
from ctxrecon.datasets.skmtea import SKMTEASource
from ctxrecon.datasets.source import VolumeSource

__all__ = [
    "FastMRISource",
    "LabelSource",
    "SKMTEASource",
    "ShardInfo",
    "ShardSlices",
    "Summary",
    "VolumeSource",
    "prepare_shards",
    "read_shard_info",
    "write_shard",
]
