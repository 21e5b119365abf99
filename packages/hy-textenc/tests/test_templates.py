import pytest
from hy_textenc import IMAGE_TEMPLATES, TEMPLATES, PromptTemplate, TextEncoderError

# Counts are of the real Llama 3 vocabulary; the digests hold the released texts.
RELEASED = [
    (TEMPLATES["video"], 256, 95, "a52f68dde3637b127592fffe9e2483a5d0563987a49db6ddb9b06146f2ba7cb5"),
    (TEMPLATES["image"], 315, 36, "e6794c248e31c8efee73f33028bbb095324ec79e0b05dfae78b373b0abd4fb98"),
    (IMAGE_TEMPLATES["video"], 256, 103, "7f45a330cc8fa70b613010c4fb6b4315a991c39eef7a405df46cb2591a547a21"),
    (IMAGE_TEMPLATES["image"], 321, None, "d5e508d91078ada4bb3ad22cf2508816eb89f99f332d382b9aa041580dc29ea5"),
]


@pytest.mark.parametrize(("template", "kept", "crop_start", "digest"), RELEASED)
def test_the_released_templates_are_what_they_were(template, kept, crop_start, digest):
    assert (template.kept, template.crop_start, template.sha256) == (kept, crop_start, digest)


@pytest.mark.parametrize("prompt", ["a cat", "", "{}", "{0} {name}", "}{", "%s", "a {", "\\"])
def test_a_prompt_is_data(prompt):
    for template, *_ in RELEASED:
        whole = template.around(prompt)
        assert whole.startswith(template.prefix)
        assert whole.endswith(template.suffix)
        assert whole[len(template.prefix) : len(whole) - len(template.suffix)] == prompt


def test_braces_of_a_template_are_its_own():
    assert PromptTemplate('{"role": "user"} {}', kept=8).around("{0}") == '{"role": "user"} {0}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no room", r"needs one place for the prompt, '\{\}'; this has 0: 'no room'"),
        ("{} and {}", "this has 2"),
        ("{0}", "this has 0"),
        ("{} <image>", "one <image> at most, before the prompt"),
        ("<image><image> {}", "one <image> at most"),
    ],
)
def test_a_template_that_cannot_work_is_refused(text, message):
    with pytest.raises(TextEncoderError, match=message):
        PromptTemplate(text, kept=8)


def test_a_template_keeps_something():
    with pytest.raises(TextEncoderError, match="at least one token, not 0"):
        PromptTemplate("{}", kept=0)
