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


def test_help_and_wrong_options_do_not_load_torch():
    code = (
        "import sys\nfrom hyvideo_encode.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'numpy', 'rich', 'cv2'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
