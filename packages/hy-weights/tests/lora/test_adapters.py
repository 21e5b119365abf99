import copy

import pytest
import torch
from hy_weights import (
    LoRA,
    LoRAError,
    insert_lora,
    inserted_lora,
    inserted_loras,
    load_strict,
    lora_parameters,
    merge_loras,
    new_lora,
    remove_lora,
    set_lora_strength,
)
from hy_weights.lora.adapters import Adapted
from hy_weights.lora.factors import Factors
from torch import nn
from torch.utils.checkpoint import checkpoint


@pytest.fixture
def linear_lora(lora):
    """Random, on every linear layer."""
    return LoRA({layer: factors for layer, factors in lora.layers.items() if layer != "patch"})


@pytest.fixture
def x():
    return torch.randn(2, 5, 6)


def test_a_new_lora_changes_nothing_bit_for_bit(model, x):
    before = model(x)
    lora = new_lora(model, ["blocks.*", "last"], rank=4)
    assert list(lora.layers) == [f"blocks.{i}.{name}" for i in (0, 1) for name in ("qkv_mlp", "proj")] + ["last"]
    insert_lora(model, lora)
    assert torch.equal(model(x), before)
    for factors in lora.layers.values():
        assert factors.down.abs().max() <= factors.down.shape[1] ** -0.5
        assert factors.down.std() > 0.4 * factors.down.shape[1] ** -0.5


def test_a_new_lora_is_drawn_from_its_generator(model):
    drawn = [new_lora(model, ["last"], rank=2, generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(drawn[0].layers["last"].down, drawn[1].layers["last"].down)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 0}, "rank of at least 1 and an alpha above 0, found rank 0"),
        ({"rank": 2, "alpha": 0.0}, "found rank 2 and alpha 0"),
        ({"rank": 2, "alpha": float("nan")}, "alpha nan"),
        ({"rank": 2, "targets": []}, "needs a target, a pattern for linear layers of Model: it has blocks.0.qkv_mlp"),
        ({"rank": 2, "targets": ["blocks.*", "patch"]}, "'patch' fits no linear layer of Model: it has blocks.0.qkv"),
    ],
)
def test_a_new_lora_that_makes_no_sense_is_refused(model, arguments, message):
    with pytest.raises(LoRAError, match=message):
        new_lora(model, **({"targets": ["last"]} | arguments))


@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 5, 6), (2, 3, 4, 6)])
def test_inserted_and_merged_are_the_same(model, linear_lora, shape):
    x = torch.randn(shape)
    with merge_loras(model, [(linear_lora, 0.3)]):
        merged = model(x)
    insert_lora(model, linear_lora, strength=0.3)
    torch.testing.assert_close(model(x), merged, atol=1e-4, rtol=1e-4)


def test_several_add_up_and_strengths_change_at_run_time(model, linear_lora, draw_factors, x):
    other = LoRA({"last": draw_factors((12, 6), 2, 0.5)})
    before = model(x)
    insert_lora(model, linear_lora, "style")
    insert_lora(model, other, "motion", strength=0.0)
    assert inserted_loras(model) == ("style", "motion")
    for style, motion in [(0.5, -2.0), (1.0, 0.0), (0.0, 0.0)]:
        set_lora_strength(model, "style", style)
        set_lora_strength(model, "motion", motion)
        inserted = model(x)
        copied = copy.deepcopy(model)
        remove_lora(copied, "style")
        remove_lora(copied, "motion")
        merge_loras(copied, [(linear_lora, style), (other, motion)])
        torch.testing.assert_close(inserted, copied(x), atol=1e-4, rtol=1e-4)
    assert torch.equal(model(x), before)


def test_the_state_dict_keeps_its_keys_and_gains_two_for_each(model, linear_lora):
    before = set(model.state_dict())
    insert_lora(model, linear_lora, "style")
    after = set(model.state_dict())
    assert after - before == {
        f"{layer}.adapters.style.{side}" for layer in linear_lora.layers for side in ("down", "up")
    }
    assert before <= after


def test_removing_restores_the_plain_model(model, linear_lora, same):
    plain = copy.deepcopy(model)
    modules, parameters = list(model.modules()), list(model.parameters())
    insert_lora(model, linear_lora, "one")
    insert_lora(model, LoRA({"last": linear_lora.layers["last"]}), "two")
    assert same(inserted_lora(model, "one"), linear_lora)
    remove_lora(model, "one")
    assert [name for name, layer in model.named_modules() if isinstance(layer, Adapted)] == ["last"]
    remove_lora(model, "two")
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    assert all(one is other for one, other in zip(model.modules(), modules, strict=True))
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    load_strict(model, plain.state_dict())


def test_only_the_lora_trains_and_learns(model, x):
    goal = model(x).detach() + 1.0
    model.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    insert_lora(model, new_lora(model, ["*"], rank=3, alpha=6.0), dropout=0.1)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in lora_parameters(model)}
    optimiser = torch.optim.Adam(lora_parameters(model), lr=0.02)
    losses = []
    for _ in range(60):
        loss = (model(x) - goal).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    trained = inserted_lora(model)
    assert all(factors.up.abs().max() > 0 for factors in trained.layers.values())
    model.eval()
    inserted = model(x)
    remove_lora(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    merge_loras(model, [(trained, 1.0)])
    torch.testing.assert_close(model(x), inserted, atol=1e-5, rtol=1e-4)


def test_gradients_are_those_of_the_merged_weight(model, linear_lora, x):
    insert_lora(model, linear_lora)
    model(x).square().sum().backward()
    adapter = model.last.adapters["default"]
    with torch.no_grad():
        hidden = x
        for block in model.blocks:
            hidden = block(hidden)
    down, up = (side.detach().clone().requires_grad_() for side in (adapter.down, adapter.up))
    weight = model.last.weight.detach() + 2.0 * up @ down
    nn.functional.linear(hidden, weight, model.last.bias).square().sum().backward()
    torch.testing.assert_close(adapter.down.grad, down.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(adapter.up.grad, up.grad, rtol=1e-3, atol=1e-3)


def test_dropout_is_for_training_alone(model, linear_lora, x):
    insert_lora(model, linear_lora, dropout=0.5)
    model.eval()
    expected = model(x)
    assert torch.equal(model(x), expected)
    model.train()
    assert not torch.equal(model(x), expected)
    model.eval()
    remove_lora(model)
    insert_lora(model, linear_lora)
    assert torch.equal(model(x), expected)


def test_a_model_in_evaluation_gets_adapters_in_evaluation(model, linear_lora, x):
    model.eval()
    insert_lora(model, linear_lora, dropout=0.9)
    assert torch.equal(model(x), model(x))


def test_half_precision_weights_take_float32_adapters(model, linear_lora, x):
    model.bfloat16()
    insert_lora(model, linear_lora)
    assert {parameter.dtype for parameter in lora_parameters(model)} == {torch.float32}
    out = model(x.bfloat16())
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in lora_parameters(model))
    reference = copy.deepcopy(model)
    remove_lora(reference)
    reference.float()
    merge_loras(reference, [(linear_lora, 1.0)])
    expected = reference(x.bfloat16().float())
    assert (out.float() - expected).norm() < 0.05 * expected.norm()


def test_autocast_works(model, linear_lora, x):
    insert_lora(model, linear_lora)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.last(x).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_stays_compiled_when_strengths_change(model, linear_lora, x):
    insert_lora(model, linear_lora, "one")
    insert_lora(model, LoRA({"last": linear_lora.layers["last"]}), "two")
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=count, fullgraph=True)
    for strength in (1.0, 0.3, 0.0):
        set_lora_strength(model, "one", strength)
        torch.testing.assert_close(compiled(x), model(x))
    assert len(graphs) == 1
    remove_lora(model, "one")
    torch.testing.assert_close(compiled(x), model(x))


def test_recomputed_activations_give_the_same_gradients(model, linear_lora, x):
    insert_lora(model, linear_lora, dropout=0.5)
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(1)
        model.zero_grad()
        hidden = x
        for block in model.blocks:
            hidden = checkpoint(block, hidden, use_reentrant=False) if recompute else block(hidden)
        hidden.square().sum().backward()
        gradients.append([p.grad.clone() for p in lora_parameters(model) if p.grad is not None])
    assert len(gradients[0]) == 8
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_the_factors_given_are_copied(model, linear_lora):
    insert_lora(model, linear_lora)
    with torch.no_grad():
        model.last.adapters["default"].up.zero_()
    assert linear_lora.layers["last"].up.any()
    taken = inserted_lora(model)
    model.last.adapters["default"].down.data.zero_()
    assert taken.layers["last"].down.any()


def test_hooks_on_a_layer_survive(model, linear_lora, x):
    seen = []
    model.last.register_forward_hook(lambda module, inputs, output: seen.append(type(module)))
    insert_lora(model, linear_lora)
    model(x)
    remove_lora(model)
    model(x)
    assert [issubclass(kind, Adapted) for kind in seen] == [True, False]
    assert seen[1] is nn.Linear


def test_a_kind_of_linear_layer_keeps_what_it_does(model, linear_lora):
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    x = torch.randn(3, 6)
    model.last = Doubled(6, 12)
    before = model.last(x)
    insert_lora(model, linear_lora)
    assert isinstance(model.last, Doubled)
    factors = linear_lora.layers["last"]
    torch.testing.assert_close(model.last(x), before + factors.scale * x @ factors.down.T @ factors.up.T)
    remove_lora(model)
    assert type(model.last) is Doubled


def test_what_can_not_be_inserted_changes_nothing(model, lora, linear_lora):
    kinds = [type(module) for module in model.modules()]
    unknown = LoRA({"last": linear_lora.layers["last"], "first": linear_lora.layers["last"]})
    wide = LoRA({"last": Factors(torch.ones(1, 7), torch.ones(12, 1), 1.0)})
    for misfit, arguments, message in [
        (lora, {}, "patch is a Conv3d; only Linear takes an adapter. Merge this LoRA instead"),
        (unknown, {}, "does not fit Model: no layer 'first'"),
        (wide, {}, r"weight of shape \[12, 6\], the LoRA's is \[12, 7\]"),
        (linear_lora, {"name": "a.b"}, "letters, digits and underscores, and no reserved word, found 'a.b'"),
        (linear_lora, {"name": "keys"}, "found 'keys'"),
        (linear_lora, {"name": "training"}, "found 'training'"),
        (linear_lora, {"dropout": 1.0}, r"dropout is in \[0, 1\) and strength finite, found 1.0"),
        (linear_lora, {"strength": float("inf")}, "found 0.0 and inf"),
    ]:
        with pytest.raises(LoRAError, match=message):
            insert_lora(model, misfit, **arguments)
    assert [type(module) for module in model.modules()] == kinds


def test_names_are_checked(model, linear_lora):
    for call in (remove_lora, inserted_lora, lora_parameters, lambda m, n: set_lora_strength(m, n, 1.0)):
        with pytest.raises(LoRAError, match="no LoRA called 'style' is inserted; there are none"):
            call(model, "style")
    insert_lora(model, linear_lora, "one")
    with pytest.raises(LoRAError, match="a LoRA called 'one' is already inserted"):
        insert_lora(model, linear_lora, "one")
    with pytest.raises(LoRAError, match="no LoRA called 'style' is inserted; there are one"):
        remove_lora(model, "style")
    with pytest.raises(LoRAError, match="strength is a finite number, found nan"):
        set_lora_strength(model, "one", float("nan"))
