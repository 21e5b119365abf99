"""What hyvideo-finetune offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="command",
            name="finetune",
            target="hyvideo_finetune.cli:main",
            summary="teach a model your clips: prepare, fit (LoRA or all weights), merge, extract",
        ),
        Component(
            kind="recipe",
            name="finetune",
            target="hyvideo_finetune.configs:folder",
            summary="fine-tuning a checkpoint: finetune/lora, finetune/full, finetune/sft",
        ),
    ]
