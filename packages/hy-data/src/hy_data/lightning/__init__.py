"""Lightning data modules: clips made on the fly, clips from shards, latents from shards. Needs the extra `train`."""

from hy_data.lightning.batches import ClipBatch, LatentBatch, to_video
from hy_data.lightning.clips import ClipShards
from hy_data.lightning.latents import LatentShards
from hy_data.lightning.promotion import Promotion
from hy_data.lightning.synthetic import PretrainClips

__all__ = ["ClipBatch", "ClipShards", "LatentBatch", "LatentShards", "PretrainClips", "Promotion", "to_video"]
