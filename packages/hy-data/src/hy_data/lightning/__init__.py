"""Lightning data modules: clips made on the fly, clips from shards, latents from a cache. Needs the extra `train`."""

from hy_data.lightning.batches import ClipBatch, PretrainBatch, to_video
from hy_data.lightning.bucketed import BucketedShards
from hy_data.lightning.clips import ClipShards
from hy_data.lightning.latent_cache import LatentCache
from hy_data.lightning.promotion import Promotion
from hy_data.lightning.synthetic import PretrainClips

__all__ = [
    "BucketedShards",
    "ClipBatch",
    "ClipShards",
    "LatentCache",
    "PretrainBatch",
    "PretrainClips",
    "Promotion",
    "to_video",
]
