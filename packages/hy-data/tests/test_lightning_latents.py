"""LatentShards: batches of one size, captions evenly, images as first latent frames, the same for the same seed."""

from collections import Counter

import numpy as np
import pytest
from hy_data.errors import DataError

pytest.importorskip("lightning", reason="needs the extra train")
torch = pytest.importorskip("torch", reason="needs the extra train")

from hy_data.latents import LatentSample, write_latents  # noqa: E402
from hy_data.lightning import LatentShards  # noqa: E402


def sample(caption, frames, number):
    latent_CTHW = (
        np.full((4, frames, 2, 3), number, np.float32) + np.arange(frames, dtype=np.float32)[:, None, None] / 10
    )
    return LatentSample(f"clip-{number}", latent_CTHW, caption, {})


@pytest.fixture
def folder(tmp_path):
    """Caption "many" has nine clips, "one" a single one of the same size, "short" one of another size."""
    many = [sample("many", 3, number) for number in range(9)]
    write_latents(tmp_path, [*many, sample("one", 3, 50), sample("short", 2, 99)])
    return tmp_path


def batches(folder, **settings):
    return list(LatentShards(folder, steps=200, **settings).train_dataloader())


def test_a_batch_holds_latents_of_one_size_with_their_captions(folder):
    for batch in batches(folder, batch_size=3, image_fraction=0.0):
        frames = batch["latent_BCTHW"].shape[2]
        assert batch["latent_BCTHW"].shape == (3, 4, frames, 2, 3)
        assert set(batch["captions"]) <= ({"short"} if frames == 2 else {"many", "one"})
        for latent_CTHW, caption in zip(batch["latent_BCTHW"], batch["captions"], strict=True):
            number = float(latent_CTHW[0, 0, 0, 0])
            assert caption == {50.0: "one", 99.0: "short"}.get(number, "many")


def test_captions_are_drawn_evenly_however_many_clips_they_have(folder):
    seen = Counter(
        caption for batch in batches(folder, batch_size=4, image_fraction=0.0) for caption in batch["captions"]
    )
    assert {caption: round(count / 800, 1) for caption, count in seen.items()} == {
        "many": 0.3,
        "one": 0.3,
        "short": 0.3,
    }


def test_an_image_is_the_first_latent_frame(folder):
    drawn = batches(folder, batch_size=2, image_fraction=0.5)
    images = [batch["latent_BCTHW"] for batch in drawn if batch["latent_BCTHW"].shape[2] == 1]
    assert 0.4 < len(images) / len(drawn) < 0.6
    assert all(float(value) == int(value) for latent in images for value in latent[:, 0, 0, 0, 0])


def test_the_seed_decides(folder):
    same, again, other = (batches(folder, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a["latent_BCTHW"], b["latent_BCTHW"]) for a, b in zip(same, again, strict=True))
    assert any(a["captions"] != b["captions"] for a, b in zip(same, other, strict=True))


def test_validation_shows_the_first_clip_of_every_caption(folder):
    shown = {
        batch["captions"][0]: float(batch["latent_BCTHW"][0, 0, 0, 0, 0])
        for batch in LatentShards(folder).val_dataloader()
    }
    assert shown == {"many": 0.0, "one": 50.0, "short": 99.0}


def test_wrong_settings_say_so(folder, tmp_path):
    with pytest.raises(ValueError, match="image_fraction"):
        LatentShards(folder, image_fraction=1.5)
    with pytest.raises(ValueError, match="batch_size=0"):
        LatentShards(folder, batch_size=0)
    with pytest.raises(DataError, match="holds no latents"):
        LatentShards(tmp_path / "nothing")
