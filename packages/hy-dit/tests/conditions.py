"""One small condition for each site; `make_condition` of conftest.py makes them by name."""

import torch
from hy_plugins.types import ConditionPlan, Contribution, ExtraTokens, TokenTime
from torch import nn


class Base(nn.Module):
    """Reads `signal`, [B, 6], and lays it out by a layer of its own."""

    batch_keys = ("signal",)

    def __init__(self, out=32):
        super().__init__()
        self.layer = nn.Linear(6, out)

    def prepare(self, batch):
        return {"signal": batch["signal"]}

    def null(self, prepared):
        return {"signal": torch.zeros_like(prepared["signal"])}

    def block_delta(self, block_id, video_BLD, where, prepared):
        raise AssertionError("the plan names no block")

    def contribute(self, prepared, t_B):
        return Contribution()


class Channels(Base):
    def plan(self, host):
        return ConditionPlan(latent_channels=2)

    def contribute(self, prepared, t_B):
        return Contribution(
            channels_BCTHW=self.layer(prepared["signal"])[:, :2, None, None, None].expand(-1, 2, 3, 4, 4)
        )


class Latent(Base):
    def plan(self, host):
        return ConditionPlan(adds_latent=True)

    def contribute(self, prepared, t_B):
        return Contribution(latent_BCTHW=self.layer(prepared["signal"])[:, :4, None, None, None].expand(-1, 4, 3, 4, 4))


class Tokens(Base):
    def plan(self, host):
        return ConditionPlan(adds_tokens=True)

    def contribute(self, prepared, t_B):
        return Contribution(tokens_BLD=self.layer(prepared["signal"])[:, None].expand(-1, 12, 32))


class Extra(Base):
    """Two extra tokens, the second of which is masked in the first clip."""

    def __init__(self, kind="video"):
        super().__init__(out=64)
        self.kind, self.row = kind, 0.0

    def plan(self, host):
        return ConditionPlan(extra_tokens=self.kind)

    def contribute(self, prepared, t_B):
        tokens_BMD = self.layer(prepared["signal"]).unflatten(1, (2, 32))
        positions_M3 = torch.tensor([[-1.0, self.row, 0.0], [-1.0, 0.0, 1.0]])
        second_B1 = (torch.arange(len(tokens_BMD)) > 0)[:, None]
        extra = ExtraTokens(
            tokens_BMD=tokens_BMD,
            positions_BM3=positions_M3.expand(len(tokens_BMD), 2, 3) if self.kind == "video" else None,
            mask_BM=torch.cat([torch.ones_like(second_B1), second_B1], dim=1),
        )
        return Contribution(extra=extra)


class Blocks(Base):
    """After the blocks 1 (double) and 2 (single), on all tokens but the last four."""

    def __init__(self, ids=(1, 2), masked=True):
        super().__init__()
        self.ids, self.masked, self.seen = ids, masked, []

    def plan(self, host):
        return ConditionPlan(block_ids=self.ids)

    def block_delta(self, block_id, video_BLD, where, prepared):
        self.seen.append((block_id, tuple(video_BLD.shape), where.start, where.stop, where.total))
        delta_BLD = self.layer(prepared["signal"])[:, None].expand_as(video_BLD)
        mask_BL = (torch.arange(video_BLD.shape[1]) < 8).expand(video_BLD.shape[:2])
        return delta_BLD, mask_BL if self.masked else None


class Time(Base):
    def plan(self, host):
        return ConditionPlan(adds_time=True)

    def contribute(self, prepared, t_B):
        return Contribution(time_BD=self.layer(prepared["signal"]))


class FirstFrame(Base):
    """The first of three frames is known: the signal, everywhere the same."""

    def __init__(self, known=4):
        super().__init__()
        self.known = known

    def plan(self, host):
        return ConditionPlan(sets_token_time=True)

    def contribute(self, prepared, t_B):
        clean_BCTHW = prepared["signal"][:, :4, None, None, None].expand(-1, 4, 3, 4, 4)
        mask_BL = (torch.arange(12) < self.known).expand(clean_BCTHW.shape[0], 12)
        return Contribution(token_time=TokenTime(clean_latent_BCTHW=clean_BCTHW, known_mask_BL=mask_BL))


MAKE = {
    "channels": Channels,
    "latent": Latent,
    "tokens": Tokens,
    "extra_video": Extra,
    "extra_text": lambda: Extra("text"),
    "blocks": Blocks,
    "time": Time,
    "first_frame": FirstFrame,
}
