import json

import pytest
from hy_rewrite import Pair, RewriteError, read_pairs

PAIR = Pair(prompt="a dog\u2028 一只狗", fields={"short": "A dog."}, mode="normal", language="English", by="m")


def test_pairs_come_back(tmp_path):
    (tmp_path / "p.jsonl").write_text(PAIR.line() + "\n" + PAIR.line())
    assert read_pairs(tmp_path / "p.jsonl") == [PAIR, PAIR]
    assert PAIR.line().count("\n") == 1
    assert "一只狗" in PAIR.line()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": 3}, "'prompt' must be a text"),
        ({"prompt": " "}, "'prompt' must be a text"),
        ({"mode": "grand"}, "mode is 'grand'; it must be one of normal, master"),
        ({"language": "Klingon"}, "language is 'Klingon'; it must be one of English"),
        ({"fields": []}, "'fields' must be an object of texts: short, dense"),
        ({"fields": {"short": 1}}, "'fields' must be an object of texts"),
    ],
)
def test_what_is_no_pair_is_said_with_its_place(tmp_path, change, message):
    line = json.dumps(json.loads(PAIR.line()) | change)
    (tmp_path / "p.jsonl").write_text(PAIR.line() + line)
    with pytest.raises(RewriteError, match=rf"p\.jsonl, line 2: {message}"):
        read_pairs(tmp_path / "p.jsonl")


@pytest.mark.parametrize(
    ("line", "message"), [("{", "is no JSON"), ("[]", "is no JSON object"), ("[" * 99999, "no JSON")]
)
def test_what_is_no_json_is_said(tmp_path, line, message):
    (tmp_path / "p.jsonl").write_text(line)
    with pytest.raises(RewriteError, match=f"line 1: .*{message}"):
        read_pairs(tmp_path / "p.jsonl")


def test_a_file_that_cannot_be_read_is_said(tmp_path):
    with pytest.raises(RewriteError, match="can't be read"):
        read_pairs(tmp_path / "gone")
    (tmp_path / "b").write_bytes(b"\xff")
    with pytest.raises(RewriteError, match="can't be read"):
        read_pairs(tmp_path / "b")
