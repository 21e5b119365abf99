"""Checkpoints whose patch projection was widened for a condition: image-to-video weights have 33 input channels.

Widening a convolution is adding a second one: the sum over input channels may be taken in two parts. So the base keeps
its own channels, and the condition's projection takes the others.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from hy_dit.conditions import Conditions
from hy_dit.errors import ConditionError
from hy_dit.model import DiT


def install_all(dit: DiT, conditions: Mapping[str, nn.Module]) -> None:
    """Install conditions, and give them the weights of the input channels that are theirs.

    Args:
        dit: It has as many input as output channels; or more by just as many as the conditions take, which it gives up.
        conditions: By name, in the order of their channels.

    Raises:
        ConditionError: A condition does not fit the transformer, or all together take another number of channels than
            it was widened by.
    """
    config = dit.config
    narrow = Conditions(replace(dit.host_spec, latent_channels=config.out_channels))
    for name, condition in conditions.items():
        narrow.install(name, condition)
    channels = [site.plan.latent_channels for site in narrow.sites()]
    surplus = config.in_channels - config.out_channels
    if not sum(channels) or not surplus:
        for name, condition in conditions.items():
            dit.conditions.install(name, condition)
        return
    if surplus != sum(channels):
        raise ConditionError(
            f"the checkpoint was widened by {surplus} input channels; the conditions take {sum(channels)}: "
            f"{dict(zip(conditions, channels, strict=True))}"
        )
    dit.config = replace(config, in_channels=config.out_channels)
    base, *parts = dit.img_in.proj.weight.detach().split([config.out_channels, *channels], dim=1)
    dit.img_in.proj.weight = nn.Parameter(base.clone())
    dit.img_in.proj.in_channels = config.out_channels
    for site, part in zip(narrow.sites(), parts, strict=True):
        if site.channels is not None:
            with torch.no_grad():
                site.channels.proj.weight.copy_(part)
    dit.conditions = narrow
