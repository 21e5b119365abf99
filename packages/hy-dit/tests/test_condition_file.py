import pytest
import torch
from hy_dit import ConditionError, DiT, load_condition, save_condition
from hy_dit.testing import CONFIG
from hy_weights import CheckpointError
from safetensors.torch import load_file, save_file


@pytest.fixture
def make(make_condition):
    """A backbone with one condition, every weight of which is drawn."""

    def build(site, seed, name="mine"):
        torch.manual_seed(seed)
        dit = DiT(CONFIG, {name: make_condition(site)})
        with torch.no_grad():
            for weight in dit.conditions.parameters():
                weight.normal_()
        return dit

    return build


def test_a_condition_is_one_small_file_that_loads_under_another_name(make, tmp_path):
    first, second = make("blocks", 0), make("blocks", 1, name="theirs")
    save_condition(tmp_path / "c.safetensors", first, "mine")
    stored = load_file(tmp_path / "c.safetensors")
    assert stored.keys() == {key for key in first.state_dict() if key.startswith("conditions.")}
    load_condition(tmp_path / "c.safetensors", second, "theirs")
    for key, value in first.conditions["mine"].state_dict().items():
        assert torch.equal(second.conditions["theirs"].state_dict()[key], value)
    save_condition(tmp_path / "c.safetensors", second, "theirs")
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_file_without_a_plan_loads_if_its_weights_fit(make, tmp_path):
    first, second = make("time", 0), make("time", 1)
    tensors = {key: value for key, value in first.state_dict().items() if key.startswith("conditions.")}
    save_file(tensors, tmp_path / "c.safetensors")
    load_condition(tmp_path / "c.safetensors", second, "mine")
    assert torch.equal(second.conditions["mine"].time_gate, first.conditions["mine"].time_gate)


def test_what_does_not_fit_is_named_and_changes_nothing(make, tmp_path):
    dit, other = make("time", 0), make("tokens", 1)
    file = tmp_path / "c.safetensors"
    save_condition(file, other, "mine")
    before = {key: value.clone() for key, value in dit.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=r'made for the plan .*"adds_tokens": true.*\'mine\' here plans .*"adds_time": true'
    ):
        load_condition(file, dit, "mine")
    save_file({key: value for key, value in other.state_dict().items() if "conditions" in key}, file)
    with pytest.raises(
        CheckpointError, match=r"does not fit Site; keys 1 missing: time_gate; 1 unexpected: token_gate"
    ):
        load_condition(file, dit, "mine")
    save_file({"img_in.proj.weight": torch.ones(2)}, file)
    with pytest.raises(CheckpointError, match="not a condition: its keys would all begin with conditions"):
        load_condition(file, dit, "mine")
    save_file({key: value * torch.nan for key, value in before.items() if "conditions" in key}, file)
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        load_condition(file, dit, "mine")
    for call in (load_condition, save_condition):
        with pytest.raises(ConditionError, match=r"no condition 'pose' is installed; there are \['mine'\]"):
            call(file, dit, "pose")
    with pytest.raises(CheckpointError, match=r"written as \.safetensors"):
        save_condition(tmp_path / "c.pt", dit, "mine")
    assert all(torch.equal(value, before[key]) for key, value in dit.state_dict().items())
