"""What hy-textenc offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="text_encoder",
            name="tiny",
            target="hy_textenc.tiny:TinyTextEncoder",
            summary="a small trainable transformer over hashed words; any language, no download",
        ),
        Component(
            kind="captioner",
            name="vlm-server",
            target="hy_textenc.captions.server:ServerCaptioner",
            summary="structured captions by a model behind any OpenAI-compatible server; needs base_url and model",
        ),
        Component(
            kind="captioner",
            name="vlm-local",
            target="hy_textenc.captions.local:LocalCaptioner",
            summary="structured captions by a vision-language model of transformers, on this machine; needs model",
        ),
    ]
