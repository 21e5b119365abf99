"""What hy-rewrite offers to `hyvideo`: see `hyvideo plugins`."""

from collections.abc import Iterable

from hy_plugins import Component, hookimpl

PLUGIN_API = (1, 0)


@hookimpl
def hy_components() -> Iterable[Component]:
    """List this package's components; nothing is imported until one is asked for."""
    return [
        Component(
            kind="rewriter",
            name="local",
            target="hy_rewrite:local_rewriter",
            summary="prompts rewritten and revised by a language model on this machine",
        ),
        Component(
            kind="rewriter",
            name="server",
            target="hy_rewrite:server_rewriter",
            summary="the same by a model behind a server that speaks the OpenAI protocol",
        ),
        Component(
            kind="rewriter",
            name="template",
            target="hy_rewrite:TemplateRewriter",
            summary="a prompt's own words in the captions' order, without a model",
        ),
        Component(
            kind="recipe",
            name="rewrite",
            target="hy_rewrite.recipes:folder",
            summary="fine-tuning a rewriter: rewrite/lora",
        ),
    ]
