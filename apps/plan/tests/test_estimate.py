import dataclasses

import pytest
import torch
from hy_dit import DiT
from hy_plugins import TextTokens
from hy_vae3d import Tiling
from hy_vae3d.footprint import footprint
from hy_weights import unallocated
from hyvideo_plan.estimate import at_least, estimate, resident_weights
from hyvideo_plan.measure import count_weights, measure_dit
from hyvideo_plan.models import find_model
from hyvideo_plan.setup import Setup
from hyvideo_plan.video import Video


def phase(found, name):
    (one,) = [phase for phase in found.phases if phase.name == name]
    return one


def train(**changes):
    return Setup(**({"task": "train", "precision": "float32"} | changes))


def test_the_released_step_is_12_petaflop_of_which_attention_is_the_most():
    """By hand: 2 x tokens x (60 blocks of 12 width^2), and 4 x tokens^2 x width of attention in each."""
    model, video = find_model("hunyuan-video-cfgdistill"), Video(width=1280, height=720, frames=129)
    found = estimate(model, video, Setup(steps=50, tiled=True))
    tokens, width = 118_800, 3072
    assert video.tokens == tokens
    attention = 4 * tokens**2 * width * 60
    assert found.step_flops == pytest.approx(2 * tokens * 60 * 12 * width**2 + attention, rel=0.01)
    assert found.step_flops == pytest.approx(12.1e15, rel=0.01)
    assert phase(found, "denoise").flops == 50 * found.step_flops
    assert phase(found, "denoise").weights == 2 * 12_821_012_544


def test_weights_are_counted_where_they_are(model):
    counted = count_weights(model.dit)
    with unallocated():
        dit = DiT(model.dit)
    assert counted.total == sum(parameter.numel() for parameter in dit.parameters())
    doubles, singles = (
        sum(parameter.numel() for parameter in stack.parameters()) for stack in (dit.double_blocks, dit.single_blocks)
    )
    assert counted.blocks == doubles + singles
    assert counted.largest_block == doubles // 2
    assert counted.largest_linear == dit.single_blocks[0].linear1.weight.numel()
    matrices = [weight for name, weight in dit.named_parameters() if name[0] in "ds" and weight.ndim == 2]
    assert counted.block_linears == sum(weight.numel() for weight in matrices)


def test_training_holds_weights_moments_gradients_and_activations(model, video):
    counted = count_weights(model.dit).total
    step = phase(estimate(model, video, train()), "step")
    assert (step.weights, step.optimizer) == (4 * counted, 8 * counted)
    assert step.activations > 10 * step.gradients
    narrow = phase(estimate(model, video, train(precision="bfloat16")), "step")
    assert (narrow.weights, narrow.optimizer) == (2 * counted, 4 * counted)
    small = Video(width=32, height=32, frames=1)
    weighty = phase(estimate(model, small, train()), "step")
    assert weighty.gradients == pytest.approx(4 * counted, rel=0.1)


def test_recompute_gives_memory_for_arithmetic(model, video):
    plain, again = estimate(model, video, train()), estimate(model, video, train(recompute=True))
    assert phase(again, "step").total < phase(plain, "step").total / 2
    assert plain.step_flops * 1.2 < again.step_flops < plain.step_flops * 4 / 3


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_adapters_alone_have_gradients_and_moments_in_float32(model, video, precision):
    setup = train(lora_rank=4, precision=precision)
    step = phase(estimate(model, video, setup), "step")
    with unallocated():
        dit = DiT(model.dit)
    linears = [
        weight for name, weight in dit.named_parameters() if name[0] in "ds" and weight.ndim == 2 and "mod" not in name
    ]
    adapters = sum(4 * sum(weight.shape) for weight in linears)
    assert step.optimizer == 8 * adapters
    assert step.weights == setup.weight_bytes * count_weights(model.dit).total + 4 * adapters
    assert step.gradients <= 4 * adapters


def test_adapters_fit_the_other_network_too():
    model = find_model("t2x-92m")
    (step,) = estimate(model, model.usual_video, train(lora_rank=4)).phases[2:]
    sides = 4 + 2 + 2 + 3 + 2 + 5 + 5  # in and out, in widths: qkv, proj, q, kv, proj, fc1, fc2
    assert step.optimizer == 8 * 13 * 4 * sides * 640


def test_an_8_bit_optimizer_keeps_two_bytes_and_its_scales(model, video):
    step = phase(estimate(model, video, train(eight_bit_optimizer=True)), "step")
    assert step.optimizer == pytest.approx(count_weights(model.dit).total * (2 + 2 * 4 / 256), rel=1e-6)


def test_8_bit_weights_and_offload_leave_what_they_say(model):
    counted = count_weights(model.dit)
    whole = resident_weights(model, Setup())
    assert whole == 2 * counted.total
    assert resident_weights(model, Setup(eight_bit_weights=True)) == whole - counted.block_linears
    assert resident_weights(model, Setup(four_bit_weights=True)) == whole - round(1.4375 * counted.block_linears)
    offloaded = resident_weights(model, Setup(resident_blocks=2))
    assert offloaded == 2 * (counted.total - counted.blocks) + 2 * 2 * counted.largest_block
    assert resident_weights(model, Setup(resident_blocks=99)) == whole
    assert resident_weights(model, train(eight_bit_weights=True)) == 4 * counted.total


def test_shards_divide_weights_moments_and_gradients_but_two_blocks(model):
    small = Video(width=32, height=32, frames=1)
    counted = count_weights(model.dit)
    one, four = (phase(estimate(model, small, train(devices=4, sharded=on)), "step") for on in (False, True))
    assert four.optimizer == one.optimizer / 4
    assert four.weights == pytest.approx(counted.total + 2 * 4 * counted.largest_block)
    assert four.gradients == pytest.approx(one.gradients / 4, rel=0.1)
    alone = phase(estimate(model, small, train(sharded=True)), "step")
    assert alone == phase(estimate(model, small, train()), "step")


def test_sequence_parallelism_divides_what_belongs_to_tokens(model, video):
    one = phase(estimate(model, video, train(devices=4)), "step")
    four = phase(estimate(model, video, train(devices=4, sequence_parallel=True)), "step")
    assert four.weights == one.weights
    held = [step.activations + step.gradients for step in (one, four)]
    assert 0.25 < held[1] / held[0] < 0.35


def test_guidance_runs_both_branches_in_one_batch(model, video):
    both, one = (phase(estimate(model, video, Setup(guidance=on)), "denoise") for on in (True, False))
    assert both.flops == pytest.approx(2 * one.flops, rel=0.01)
    assert both.activations == pytest.approx(2 * one.activations, rel=0.1)
    assert find_model("hunyuan-video-cfgdistill").passes == 1


def test_all_that_stays_is_added_up(model, video):
    apart, together = (estimate(model, video, Setup(keep_all=keep)) for keep in (False, True))
    assert {phase.weights for phase in together.phases} == {sum(phase.weights for phase in apart.phases)}
    assert [phase.activations for phase in together.phases] == [phase.activations for phase in apart.phases]


@pytest.mark.parametrize("task", ["sample", "train"])
def test_the_vae_is_measured_in_the_tiles_that_it_works_in(model, video, task):
    half = "decode" if task == "sample" else "encode"
    shape = (video.frames, video.height, video.width)
    for tiled, tiling in ((False, None), (True, Tiling())):
        found = phase(estimate(model, video, Setup(task=task, tiled=tiled, batch=2)), half)
        expected = footprint(model.vae, half, shape, tiling=tiling, dtype=torch.bfloat16)
        assert (found.weights, found.flops) == (expected.weights, 2 * expected.flops)
        assert found.total == expected.total
    mixed = phase(estimate(model, video, Setup(task=task, precision="mixed")), half)
    assert mixed.total == footprint(model.vae, half, shape, dtype=torch.float32).total


def test_tiles_cost_arithmetic_and_save_memory(model, video):
    whole, tiled = (phase(estimate(model, video, Setup(tiled=tiled)), "decode") for tiled in (False, True))
    assert tiled.activations < whole.activations
    assert 1.2 * whole.flops < tiled.flops < 2.5 * whole.flops


@pytest.mark.parametrize("recompute", [False, True])
def test_the_floor_is_one(model, recompute):
    small = Video(width=16, height=16, frames=1)
    for setup in (train(recompute=recompute), train(recompute=recompute, lora_rank=2), train(eight_bit_optimizer=True)):
        assert at_least(model, setup) <= phase(estimate(model, small, setup), "step").total


def test_what_is_measured_grows_with_the_tokens(model):
    runs = [measure_dit(model.dit, (1, frames, 32, 32), 16, "float32", training=True).peak() for frames in (4, 8, 12)]
    assert runs[2] - runs[1] == pytest.approx(runs[1] - runs[0], rel=0.02)


def test_precision_is_followed(model):
    peaks = {
        precision: measure_dit(model.dit, (1, 8, 32, 32), 16, precision, training=True).peak()
        for precision in ("float32", "bfloat16", "mixed")
    }
    assert peaks["bfloat16"] < peaks["mixed"] < peaks["float32"]


def test_a_t2x_size_is_planned_too():
    model = find_model("t2x-92m")
    image = model.usual_video
    found = estimate(model, image, Setup(task="train", batch=4))
    per_token = found.step_flops / (4 * image.tokens)
    assert per_token == pytest.approx(6 * 92_333_120, rel=0.15)
    assert dataclasses.asdict(image) == {"width": 256, "height": 256, "frames": 1}


def test_what_is_on_every_device_is_not_divided(model, video):
    least = Video(width=16, height=16, frames=1)
    one, many = (
        phase(estimate(model, least, train(devices=4, sequence_parallel=on)), "step").total for on in (False, True)
    )
    assert one == many
    huge = phase(estimate(model, video, train(devices=10**6, sequence_parallel=True)), "step")
    assert huge.total == pytest.approx(one, abs=1000)


def test_each_addition_is_there(model, video):
    counted, shape = count_weights(model.dit), (1, *video.latent_grid)
    trained = measure_dit(model.dit, shape, 16, "float32", training=True)
    step = phase(estimate(model, video, train(devices=4, sharded=True)), "step")
    assert step.gradients + step.activations == trained.peak(1 / 4) + 4 * counted.largest_block
    sampled = measure_dit(model.dit, shape, 16, "bfloat16", training=False)
    latents = 3 * 4 * 4 * 33 * 32 * 64
    for eight_bit, widened in ((False, 0), (True, 2 * counted.largest_linear)):
        denoise = phase(estimate(model, video, Setup(guidance=False, eight_bit_weights=eight_bit)), "denoise")
        assert denoise.activations == sampled.peak() + latents + widened


def test_nothing_without_data_is_left_behind(model):
    torch.manual_seed(0)
    grid = (1, 3, 6, 10)
    first = measure_dit(model.dit, grid, 16, "float32", training=False)
    dit = DiT(model.dit)
    text = TextTokens(torch.randn(1, 16, 32), torch.ones(1, 16, dtype=torch.bool), torch.randn(1, 16))
    with torch.no_grad():
        assert dit(torch.randn(1, 4, *grid[1:]), torch.rand(1), text).isfinite().all()
    measure_dit.cache_clear()
    assert measure_dit(model.dit, grid, 16, "float32", training=False) == first
