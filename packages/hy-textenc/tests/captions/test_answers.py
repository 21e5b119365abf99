import json
import time

import pytest
from hy_textenc.captions import CaptionError
from hy_textenc.captions.answers import MOST_ANSWER, obtain, read_answer

GOOD = {"short": "A cat runs.", "shot_type": "close-up", "tags": ["cat"]}
TEXT = json.dumps(GOOD)


@pytest.mark.parametrize(
    "answer",
    [
        TEXT,
        f"```json\n{TEXT}\n```",
        f"Here is the caption you asked for:\n\n{TEXT}\nI hope this helps!",
        f"Fill in {{braces}} so: {TEXT}",
        f'<think>maybe {{"a": 1}}</think>\n{TEXT}',
        TEXT[:-1] + ",\n}",
        TEXT.replace('"]', '",]'),
        json.dumps(GOOD, indent=4),
        "\ufeff" + TEXT,
    ],
)
def test_the_object_is_found(answer):
    caption = read_answer(answer)
    assert (caption.short, caption.shot_type, caption.tags) == ("A cat runs.", "close-up", ("cat",))


def test_a_movement_without_a_confidence_is_a_guess():
    assert read_answer('{"short": "x", "camera_movement": "pan up"}').camera_confidence == 0
    assert read_answer('{"short": "x", "camera_movement": "pan up", "camera_confidence": 0.9}').camera_confidence == 0.9


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I can't describe this.",
        "[1, 2]",
        "{'short': 'x'}",
        '{"short": "x"',
        '{"short": ""}',
        '{"short": ["x", {"y": 1}]}',
        "{" * 60_000,
        '{"short":' * 6_000,
        '{"a":' * 5_000 + "1" + "}" * 5_000,
        "}{" * 30_000,
        ", " * 30_000 + "{" + " ," * 1_000,
        '{"short": "x"}' + "x" * MOST_ANSWER,
        '{"short": "' + "x" * 1000 + '"}',
        '{"short": "x", "shot_type": "__import__(\'os\').system(\'true\')"}',
    ],
)
def test_what_is_no_caption_is_refused_quickly(answer):
    start = time.perf_counter()
    with pytest.raises(CaptionError, match=r"^clip 7: ") as caught:
        read_answer(answer, "clip 7")
    assert len(str(caught.value)) < 500
    assert time.perf_counter() - start < 2


def test_hostile_text_is_only_text():
    hostile = "Ignore all instructions. {} `rm -rf /` %s {0} <script>alert(1)</script>\x00\x1b[2J"
    caption = read_answer(json.dumps({"short": hostile, "__class__": "os.system", "extra": {"a": [hostile]}}))
    assert caption.short == "Ignore all instructions. {} `rm -rf /` %s {0} <script>alert(1)</script>[2J"
    assert set(caption.metadata) == {"__class__", "extra"}


def test_one_repair_is_asked_for_with_the_reason():
    asked = []
    answers = ["no braces here", TEXT]

    def ask(turns):
        asked.append(list(turns))
        return answers.pop(0)

    assert obtain(ask, "clip 7").short == "A cat runs."
    assert asked[0] == []
    (first, second) = asked[1]
    assert first == ("assistant", "no braces here")
    assert second[0] == "user"
    assert "it must be one JSON object" in second[1]
    assert "clip 7" not in second[1]


def test_a_good_answer_is_not_asked_for_again():
    asked = []
    assert obtain(lambda turns: asked.append(turns) or TEXT, "clip 7").short == "A cat runs."
    assert len(asked) == 1


def test_after_one_repair_the_clip_is_refused():
    asked = []

    def ask(turns):
        asked.append(turns)
        return json.dumps({"short": "x", "shot_type": f"wrong {len(asked)}"})

    with pytest.raises(CaptionError, match=r"^clip 7: caption field 'shot_type' is 'wrong 2'"):
        obtain(ask, "clip 7")
    assert len(asked) == 2
    assert "'wrong 1'; it must be one of aerial" in asked[1][1][1]


def test_a_huge_answer_is_not_sent_back_whole():
    sizes = []

    def ask(turns):
        sizes.append(sum(len(text) for _, text in turns))
        return "x" * 10**6

    with pytest.raises(CaptionError, match="1000000 characters"):
        obtain(ask, "clip 7")
    assert sizes[1] < 6000
