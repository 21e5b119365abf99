import subprocess
import sys
from pathlib import Path

import pytest
from hyvideo_encode.cli import main, parse
from hyvideo_encode.errors import EncodeError

LEAST = ["shards", "--encoder", "checkpoint", "--store", "states"]


def test_the_usual_settings():
    request = parse(LEAST)
    assert request.sources == [Path("shards")]
    assert (request.encoder, request.store) == ("checkpoint", Path("states"))
    assert (request.captions, request.workers, request.batch_size, request.max_size) == ([], None, 8, None)
    assert (request.device, request.dtype, request.media, request.quantization) == ("auto", None, None, None)
    assert (request.config, request.vae, request.buckets) == (None, None, [])
    assert (request.format, request.vae_dtype, request.tiling) == ("bf16", "float32", False)
    assert parse([*LEAST, "--caption", "short", "--caption", "dense"]).captions == ["short", "dense"]


@pytest.mark.parametrize(
    ("text", "size"), [("200GB", 200 * 10**9), ("1.5T", 15 * 10**11), ("10 MB", 10**7), ("500kB", 500_000), ("7", 7)]
)
def test_a_size_is_bytes_with_a_unit(text, size):
    assert parse([*LEAST, "--max-size", text]).max_size == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1PB", "1e9", "10 apples"])
def test_what_is_no_size_is_refused(text, capsys):
    with pytest.raises(SystemExit) as error:
        parse([*LEAST, f"--max-size={text}"])
    assert error.value.code == 2
    assert "is no size in bytes, such as" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--workers", "--batch-size", "--max-size"])
def test_less_than_one_is_refused(option):
    with pytest.raises(EncodeError, match=f"{option[2:]} is 0; it must be at least 1"):
        main([*LEAST, option, "0"])


def test_buckets_are_frames_height_and_width(capsys):
    clips = ["shards", "--vae", "tiny-vae", "--store", "states", "--buckets", "1x256x256", "33x144x256"]
    assert parse(clips).buckets == [(1, 256, 256), (33, 144, 256)]
    for text in ("256x256", "33x256x256x1", "33x256", "axbxc", "-1x16x16"):
        with pytest.raises(SystemExit) as error:
            parse([*clips[:-2], text])
        assert error.value.code == 2
        assert "is not FRAMESxHEIGHTxWIDTH, such as 33x256x256" in capsys.readouterr().err or text[0] == "-"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--encoder", "m", "--store", "s"], "name shards, or give --config"),
        (["shards", "--encoder", "m"], "--store is missing"),
        (["shards", "--store", "s"], "give --encoder to encode captions, --vae to encode clips, or both"),
        (["shards", "--store", "s", "--vae", "m"], "--vae and --buckets go together"),
        (["shards", "--store", "s", "--encoder", "m", "--buckets", "1x16x16"], "--vae and --buckets go together"),
    ],
)
def test_what_is_missing_is_named(argv, message):
    with pytest.raises(EncodeError, match=message):
        parse(argv)


def test_a_recipe_needs_nothing_else():
    request = parse(["--config", "recipe.yaml", "--workers", "2", "--device", "cpu", "--max-size", "1GB"])
    assert (request.config, request.workers, request.max_size) == ("recipe.yaml", 2, 10**9)


def test_help_and_wrong_options_do_not_load_torch():
    code = (
        "import sys\nfrom hyvideo_encode.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'numpy', 'rich', 'cv2'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
