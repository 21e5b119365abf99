"""What hy-textenc offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    offered = [
        ("tiny", "tiny:TinyTextEncoder", "a small trainable transformer over hashed words; any language, no download"),
        (
            "hunyuan-video",
            "hunyuan_video:HunyuanVideoTextEncoder",
            "llava-llama-3 and clip-l, from a pipeline's folder",
        ),
        ("llava-llama-3", "mllm:MLLMEncoder", "token states of Llama 3 or Llava; text, and text with an image"),
        ("clip-l", "clip:CLIPTextEncoder", "the pooled vector of CLIP's text encoder"),
        ("t5", "t5:T5Encoder", "token states of T5's encoder"),
    ]
    return [
        Component(kind="text_encoder", name=name, target=f"hy_textenc.{target}", summary=summary)
        for name, target, summary in offered
    ]
