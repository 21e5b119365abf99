"""Each kind's protocol is documented in the README and can be built by jsonargparse from a config."""

import inspect
import re
from pathlib import Path

import pytest
from hy_plugins import protocols

README = (Path(__file__).parents[1] / "README.md").read_text()
PROTOCOLS = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(): protocol
    for name, protocol in vars(protocols).items()
    if getattr(protocol, "_is_protocol", False) and protocol.__module__ == protocols.__name__ and name != "Posterior"
}
ROWS = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", README, flags=re.MULTILINE))


def test_the_kinds_are_those_of_the_design():
    kinds = (
        "condition backbone autoencoder text_encoder path sampler filter captioner rewriter parallel_plan command model"
    )
    assert set(PROTOCOLS) == set(kinds.split())


def test_the_readme_documents_no_kind_that_is_not_there():
    assert set(ROWS) == set(PROTOCOLS)


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_each_kind_is_documented_with_its_signature(kind):
    protocol = PROTOCOLS[kind]
    methods = {name: member for name, member in vars(protocol).items() if inspect.isfunction(member)}
    own = {name: method for name, method in methods.items() if not name.startswith("_") or name == "__call__"}
    signatures = [f"`{name.replace('__call__', '')}({parameters(method)})`" for name, method in own.items()]
    attributes = [f"`{name}`" for name, member in vars(protocol).items() if isinstance(member, property)]
    assert signatures + attributes
    assert [word for word in signatures + attributes if word not in ROWS[kind]] == []
    assert inspect.getdoc(protocol).endswith((".", ")."))


def parameters(method):
    """Names and defaults, without annotations, as the README writes them."""
    return ", ".join(
        name if parameter.default is inspect.Parameter.empty else f"{name}={parameter.default}"
        for name, parameter in inspect.signature(method).parameters.items()
        if name != "self"
    )


def test_instances_are_told_by_their_methods():
    class Encoder:
        def encode(self, prompts):
            return prompts

    assert isinstance(Encoder(), protocols.TextEncoder)
    assert not isinstance(Encoder(), protocols.Autoencoder)
    assert not isinstance(Encoder(), protocols.Rewriter)
