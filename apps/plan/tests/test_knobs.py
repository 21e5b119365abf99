import pytest
from hyvideo_plan import knobs as module
from hyvideo_plan.estimate import estimate
from hyvideo_plan.knobs import KNOBS, advise
from hyvideo_plan.setup import Setup
from hyvideo_plan.video import Video

MIXED = Setup(task="train", precision="mixed")
CLIP = Video(width=128, height=128, frames=17)


def names(advice):
    return [knob.name for knob in advice.knobs]


def test_nothing_is_turned_where_all_fits(model):
    advice = advise(model, CLIP, MIXED, 10**12)
    assert (names(advice), advice.fits) == ([], True)
    assert advice.estimate == estimate(model, CLIP, MIXED)


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.name)
def test_each_knob_saves_or_leaves_as_it_is(model, knob):
    start = Setup(task="train", precision="mixed", devices=4, lora_rank=2) if "-bit weights" in knob.name else MIXED
    start = Setup(task="train", precision="mixed", devices=4) if knob.name in ("shards", "sequence parallel") else start
    start = Setup(keep_all=True) if knob.name in ("one part at a time", "block offload") else start
    assert knob.can_turn(start)
    turned = knob.turn(start)
    assert not knob.can_turn(turned)
    video = Video(width=512, height=256, frames=129) if knob.name == "VAE tiling" else CLIP
    totals = [[phase.total for phase in estimate(model, video, setup).phases] for setup in (start, turned)]
    assert any(after < before for before, after in zip(*totals, strict=True))
    assert all(after <= before for before, after in zip(*totals, strict=True))


def test_the_cheapest_that_fit_are_chosen(model):
    need = estimate(model, CLIP, MIXED).peak
    first = advise(model, CLIP, MIXED, need - 1)
    assert first.fits
    price = sum(knob.price for knob in first.knobs)
    # No cheaper set fits: checked against every set, without the search's shortcuts.
    for knobs, setup in module._setups(MIXED):
        if sum(knob.price for knob in knobs) < price:
            assert estimate(model, CLIP, setup).peak > need - 1


def test_less_memory_takes_more(model):
    most, least = estimate(model, CLIP, MIXED).peak, advise(model, CLIP, MIXED, 0).estimate.peak
    prices = []
    for share in (1.0, 0.5, 0.01):
        memory = round(least + share * (most - least))
        advice = advise(model, CLIP, MIXED, memory)
        assert advice.fits
        assert advice.estimate.peak <= memory
        prices.append(sum(knob.price for knob in advice.knobs))
    assert prices == sorted(prices)
    assert prices[0] < prices[1] < prices[2]


def test_where_nothing_fits_the_least_is_told(model):
    advice = advise(model, CLIP, MIXED, 1000)
    assert not advice.fits
    least = min(estimate(model, CLIP, setup).peak for _, setup in module._setups(MIXED))
    assert advice.estimate.peak <= least * 1.02
    assert "recompute" in names(advice)


def test_what_contradicts_is_not_turned_together():
    for task in ("sample", "train"):
        for _, setup in module._setups(Setup(task=task, devices=2)):
            assert not (setup.sharded and setup.resident_blocks)
            assert setup.frozen or not (setup.rounded_bytes or setup.resident_blocks)


def test_shards_need_devices():
    assert not any("shards" in [knob.name for knob in knobs] for knobs, _ in module._setups(Setup()))


def test_setups_that_cannot_fit_are_not_run(model):
    tried = []
    advise(model, CLIP, Setup(task="train", precision="float32"), 10**6, tried.append)
    assert len(tried) <= 2
