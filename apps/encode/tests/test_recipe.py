"""What a recipe's training will look up is encoded, and nothing else."""

from pathlib import Path

import pytest
from hy_data.index import index_shards
from hy_data.lightning import BucketedShards
from hy_data.staged_items import stage_items
from hy_textenc import load_cached_text_encoder
from hy_weights import CheckpointError, TensorStore
from hyvideo_encode.cli import main
from hyvideo_encode.errors import EncodeError
from jsonargparse import ArgumentParser

RECIPE = """
seed_everything: 0
model:
  class_path: nowhere.FlowMatching
  init_args:
    backbone: {class_path: nowhere.DiT}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1e-4}}
    text_encoder:
      class_path: hy_textenc.load_cached_text_encoder
      init_args: {path: checkpoint, store: texts}
data:
  class_path: hy_data.lightning.BucketedShards
  init_args:
    shards: footage
    steps: 12
    held_out: 0.4
    caption: {class_path: hy_textenc.captions.Synthesis, init_args: {variants: 3}}
    latents:
      class_path: hy_data.lightning.LatentCache
      init_args: {store: latents, autoencoder: checkpoint, format: int8}
    stages:
    - {name: images, buckets: [[1, 32, 48]], batch_size: 2, steps: 10}
    - {name: videos, buckets: [[5, 32, 48], [9, 32, 32]], batch_size: 2, image_fraction: 0.25}
trainer:
  max_steps: 3
  callbacks:
  - {class_path: nowhere.Samples, init_args: {prompts: [a sample, another]}}
"""
COMMAND = ["--config", "recipe.yaml", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _inline(pool, footage):
    Path("recipe.yaml").write_text(RECIPE)


def entries(store):
    return sorted(Path(store).glob("??/*.safetensors"))


def data_of(recipe="recipe.yaml"):
    """The recipe's data module, set up as a trainer would."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=BucketedShards)
    for part in ("model", "trainer"):
        parser.add_argument(f"--{part}", type=dict)
    parser.add_argument("--seed_everything", type=int)
    data = parser.instantiate(parser.parse_path(recipe)).data
    data.setup("validate")
    return data


def seen_by_a_training(data):
    """Captions of many batches of every stage, and of validation."""
    texts = set()
    for stage in range(len(data.curriculum.stages)):
        data.curriculum.stage = stage
        for batch in (*data.train_dataloader(), *data.val_dataloader()):
            assert "latent_BCTHW" in batch
            texts |= set(batch["captions"])
    return texts


def test_everything_that_the_training_asks_for_is_there(capsys):
    assert main(COMMAND) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told] == ["texts", str(Path("latents").resolve())]
    texts = seen_by_a_training(data_of())
    encoder = load_cached_text_encoder("checkpoint", "texts", missing="error")
    encoder.encode([*texts, "", "a sample", "another"])
    assert encoder.misses == 0
    assert all(any(f"Clip {number}" in text for text in texts) for number in range(3))


def test_nothing_else_is_there_and_the_second_time_nothing_is_done(pool, capsys):
    main(COMMAND)
    data, clips = data_of(), index_shards("footage")
    items = [item for stage in data.curriculum.stages for item in stage_items(stage, clips).all_items()]
    assert {file.stem for file in entries("latents")} == {data.latents.key(item) for item in items}
    texts = {data.caption(clip.description["captions"], number) for clip in clips for number in range(3)}
    assert len(entries("texts")) == len(texts | {"", "a sample", "another"})
    pool.last = None
    capsys.readouterr()
    assert main(COMMAND) == 0
    assert pool.last.batches == []
    assert capsys.readouterr().out.count("(100%)") == 2


def test_what_is_lost_is_encoded_again(pool):
    main(COMMAND)
    before = [file.stem for file in entries("latents")]
    entries("latents")[0].unlink()
    assert main(COMMAND) == 0
    assert [len(batch) for batch in pool.last.batches] == [1]
    assert [file.stem for file in entries("latents")] == before


def test_without_a_cached_encoder_only_latents_are_encoded(capsys):
    Path("recipe.yaml").write_text(RECIPE.replace("load_cached_text_encoder", "TinyTextEncoder"))
    assert main(COMMAND) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert not Path("texts").exists()
    data_of()


def test_without_a_cache_of_latents_only_texts_are_encoded(capsys):
    lines = RECIPE.splitlines()
    start = lines.index("    latents:")
    Path("recipe.yaml").write_text("\n".join(lines[:start] + lines[start + 3 :]))
    assert main(COMMAND) == 0
    assert "prompts" in capsys.readouterr().out
    assert not Path("latents").exists()
    both = RECIPE.replace("load_cached_text_encoder", "TinyTextEncoder").splitlines()
    Path("recipe.yaml").write_text("\n".join(both[:start] + both[start + 3 :]))
    with pytest.raises(EncodeError, match=r"recipe\.yaml: it looks up nothing"):
        main(COMMAND)


def test_the_bound_of_a_recipes_store_holds():
    bounded = "{class_path: hy_weights.TensorStore, init_args: {folder: latents, max_bytes: 10}}"
    Path("recipe.yaml").write_text(RECIPE.replace("store: latents", f"store: {bounded}"))
    with pytest.raises(EncodeError, match=r"can't be stored: .* is larger than the bound of 10"):
        main(COMMAND)


def test_a_clip_whose_captions_cannot_be_made_is_told(capsys, monkeypatch):
    from hy_textenc.captions import CaptionError, Synthesis

    original = Synthesis.__call__

    def call(self, captions, number):
        if captions["short"] == "clip 1":
            raise CaptionError("it must be kinder", field="short", found="clip 1")
        return original(self, captions, number)

    monkeypatch.setattr(Synthesis, "__call__", call)
    assert main(COMMAND) == 1
    told = capsys.readouterr()
    assert "clips-000000.tar: 1: caption field 'short' is 'clip 1'; it must be kinder" in told.err
    assert "1 failed" in told.out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hy_data.lightning.BucketedShards", "nowhere.Data", "recipe.yaml: .*nowhere"),
        ("shards: footage", "shards: nowhere", "nowhere"),
        ("variants: 3", "variants: 0", "variants is 0"),
        ("batch_size: 2, steps", "batches: 2, steps", "batches"),
        ("path: checkpoint, store", "paht: checkpoint, store", "model.init_args.text_encoder: .*paht"),
        ("data:", "date:", "no recipe"),
    ],
)
def test_a_recipe_that_is_wrong_is_said_to_be(old, new, message):
    Path("recipe.yaml").write_text(RECIPE.replace(old, new, 1))
    with pytest.raises(Exception, match=message) as error:
        main(COMMAND)
    assert getattr(error.value, "exit_code", None) == 2


def test_a_missing_encoder_is_found_before_anything_is_encoded():
    Path("recipe.yaml").write_text(RECIPE.replace("autoencoder: checkpoint", "autoencoder: nowhere"))
    with pytest.raises(CheckpointError, match="nowhere: no such file or folder"):
        main(COMMAND)
    assert TensorStore("texts").folder.exists() is False


@pytest.mark.parametrize(
    ("options", "named"),
    [(["footage"], "SHARDS"), (["--store", "x"], "--store"), (["--tiling", "--vae", "y"], "--tiling, --vae")],
)
def test_a_recipe_says_it_all(options, named):
    with pytest.raises(EncodeError, match=f"a recipe says what to encode; leave out {named}$"):
        main([*COMMAND, *options])


def test_no_recipe_is_no_file():
    with pytest.raises(EncodeError, match=r"none\.yaml"):
        main(["--config", "none.yaml"])
