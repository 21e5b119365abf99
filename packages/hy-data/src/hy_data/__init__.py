"""Video files in, training shards out: reading, shots, buckets, shards and the procedural world.

The names below are imported when first used: listing this package's plugin must stay quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hy_data.analyser import Reading, Scores, read_caption, read_clip, score
    from hy_data.buckets import Bucket, buckets_for, choose_bucket, fit
    from hy_data.captions import MeasuredCaptioner
    from hy_data.contact_sheet import Row, write_contact_sheet
    from hy_data.errors import (
        CannotWrite,
        DataError,
        EmptyVideo,
        MissingFootage,
        NoSettings,
        NotAVideo,
        TruncatedVideo,
        Unreachable,
    )
    from hy_data.index import Fault, StoredClip, index_shards
    from hy_data.items import Item, LeftOut, items_for
    from hy_data.ledger import Ledger, LedgerEntry
    from hy_data.packing import Packing, pack_footage
    from hy_data.photos import KenBurns
    from hy_data.recaption import replace_captions
    from hy_data.shards import ClipSample, ShardWriter, read_shards
    from hy_data.shots import Shot, split_shots, street_clip
    from hy_data.video import Clip, VideoInfo, encode_video, iter_frames, probe, read_settings, read_video, write_video
    from hy_data.world import World, WorldClip
    from hy_data.world_packing import pack_world

__all__ = [
    "Bucket",
    "CannotWrite",
    "Clip",
    "ClipSample",
    "DataError",
    "EmptyVideo",
    "Fault",
    "Item",
    "KenBurns",
    "Ledger",
    "LedgerEntry",
    "LeftOut",
    "MeasuredCaptioner",
    "MissingFootage",
    "NoSettings",
    "NotAVideo",
    "Packing",
    "Reading",
    "Row",
    "Scores",
    "ShardWriter",
    "Shot",
    "StoredClip",
    "TruncatedVideo",
    "Unreachable",
    "VideoInfo",
    "World",
    "WorldClip",
    "buckets_for",
    "choose_bucket",
    "encode_video",
    "fit",
    "index_shards",
    "items_for",
    "iter_frames",
    "pack_footage",
    "pack_world",
    "probe",
    "read_caption",
    "read_clip",
    "read_settings",
    "read_shards",
    "read_video",
    "replace_captions",
    "score",
    "split_shots",
    "street_clip",
    "write_contact_sheet",
    "write_video",
]

_HOME = {
    "Bucket": "hy_data.buckets",
    "CannotWrite": "hy_data.errors",
    "Clip": "hy_data.video",
    "ClipSample": "hy_data.shards",
    "DataError": "hy_data.errors",
    "EmptyVideo": "hy_data.errors",
    "Fault": "hy_data.index",
    "Item": "hy_data.items",
    "KenBurns": "hy_data.photos",
    "Ledger": "hy_data.ledger",
    "LedgerEntry": "hy_data.ledger",
    "LeftOut": "hy_data.items",
    "MeasuredCaptioner": "hy_data.captions",
    "MissingFootage": "hy_data.errors",
    "NoSettings": "hy_data.errors",
    "NotAVideo": "hy_data.errors",
    "Packing": "hy_data.packing",
    "Reading": "hy_data.analyser",
    "Row": "hy_data.contact_sheet",
    "Scores": "hy_data.analyser",
    "ShardWriter": "hy_data.shards",
    "Shot": "hy_data.shots",
    "StoredClip": "hy_data.index",
    "TruncatedVideo": "hy_data.errors",
    "Unreachable": "hy_data.errors",
    "VideoInfo": "hy_data.video",
    "World": "hy_data.world",
    "WorldClip": "hy_data.world",
    "buckets_for": "hy_data.buckets",
    "choose_bucket": "hy_data.buckets",
    "encode_video": "hy_data.video",
    "fit": "hy_data.buckets",
    "index_shards": "hy_data.index",
    "items_for": "hy_data.items",
    "iter_frames": "hy_data.video",
    "pack_footage": "hy_data.packing",
    "pack_world": "hy_data.world_packing",
    "probe": "hy_data.video",
    "read_caption": "hy_data.analyser",
    "read_clip": "hy_data.analyser",
    "read_settings": "hy_data.video",
    "read_shards": "hy_data.shards",
    "read_video": "hy_data.video",
    "replace_captions": "hy_data.recaption",
    "score": "hy_data.analyser",
    "split_shots": "hy_data.shots",
    "street_clip": "hy_data.shots",
    "write_contact_sheet": "hy_data.contact_sheet",
    "write_video": "hy_data.video",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
