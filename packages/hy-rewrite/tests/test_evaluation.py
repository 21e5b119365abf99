import pytest
from hy_rewrite import ChatRewriter, Options, Pair, RewriteError, drafts, evaluate
from hy_rewrite.evaluation import Share

FULL = {
    "short": "3 foxes in Paris.",
    "dense": 'A sign reads "Hi". No people, red snow.',
}
PROMPT = 'a scene with 3 foxes in Paris, a sign "Hi", red snow, no people'


def pair(prompt=PROMPT, language="English", **fields):
    return Pair(prompt=prompt, fields=fields or FULL, mode="normal", language=language)


def test_a_faithful_rewrite_has_every_share():
    found = evaluate([pair()])
    assert {kind: str(share) for kind, share in found.kept.items()} == dict.fromkeys(
        ("number", "quote", "name", "colour", "negation"), "1 of 1 (100.0%)"
    )
    assert found.faithful == found.structured == found.in_language == found.short_enough == Share(1, 1)
    assert found.filled == Share(2, 8)
    assert found.length == len(FULL["short"] + " " + FULL["dense"])


def test_each_fault_lowers_its_share():
    found = evaluate(
        [
            pair(),
            pair(short="foxes in Paris", dense="red, no people, 'Hi'"),
            pair(short=FULL["short"]),
            pair(prompt="a dog on a hill", short="7 dogs", dense="run"),
            pair(prompt="a dog on a hill", short="狗", dense="狗在跑"),
            pair(prompt="a dog on a hill", short="a dog", dense="x" * 1300),
            pair(prompt="a dog on a hill", short="a dog", dense="runs", mood="glad"),
            Pair(prompt="a dog", fields={}, mode="normal", language="English"),
        ]
    )
    assert found.kept["number"] == Share(2, 3)
    assert found.kept["negation"] == Share(2, 3)
    assert found.faithful == Share(4, 8)
    assert found.structured == Share(5, 8)
    assert found.in_language == Share(6, 8)
    assert found.short_enough == Share(7, 8)


def test_quotes_may_stay_in_their_language():
    assert evaluate([pair(prompt="「你好你好你好」", short='"你好你好你好"', dense="a")]).in_language == Share(1, 1)


def test_no_pairs_are_refused():
    with pytest.raises(RewriteError, match="no pairs to evaluate"):
        evaluate([])


def test_shares_in_words():
    assert str(Share()) == "0 of 0"
    assert str(Share(1, 3)) == "1 of 3 (33.3%)"


def test_drafts_are_first_answers_in_the_rewriters_mode(scripted):
    rewriter = ChatRewriter(scripted({"short": "a"}, "babble"), Options(mode="master"))
    first, second = drafts(rewriter, [pair(), pair(prompt="b")])
    assert (first.fields, first.mode, first.by, first.prompt) == ({"short": "a"}, "master", "scripted", PROMPT)
    assert second.fields == {}
