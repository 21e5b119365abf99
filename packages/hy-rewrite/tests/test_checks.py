# ruff: noqa: RUF001 - many scripts are tested
import pytest
from hy_rewrite.checks import Detail, details, faults, invented, lost, quoted
from hy_rewrite.languages import SCRIPTS, is_in_script, looks_english


def said(found):
    return [str(detail) for detail in found]


def test_every_kind_of_detail_is_found_once():
    prompt = 'Marie Curie and two dogs walk in Paris past a gray sign "Hi, you." with 3 lamps, no people, two dogs'
    assert details(prompt, "English") == (
        Detail("number", "3"),
        Detail("number", "2"),
        Detail("quote", "Hi, you"),
        Detail("name", "Marie"),
        Detail("name", "Curie"),
        Detail("name", "Paris"),
        Detail("colour", "grey"),
        Detail("negation", "no"),
    )


@pytest.mark.parametrize(
    ("prompt", "rewritten", "gone"),
    [
        ("three dogs", "3 dogs run.", []),
        ("3 dogs", "Three dogs run.", []),
        ("three dogs", "Dogs run.", ["number '3'"]),
        ("three dogs", "Thirteen dogs run.", ["number '3'"]),
        ("two cats", "A pair of cats.", []),
        ("one dog in the park", "The dogs in the park.", []),
        ("1 dog", "A dog.", []),
        ("a sign that says 'Go Now'", 'A sign reads "Go Now".', []),
        ("a sign that says 'Go Now'", 'A sign reads "go now".', ["quote 'Go Now'"]),
        ("the dog's bone isn't here", "The bone of the dog is missing. There is none.", []),
        ("a day in Paris", "A day in paris.", []),
        ("a day in Paris", "A day in a Parisian city.", ["name 'Paris'"]),
        ("a red car and a gray van", "A red car and a grey van.", []),
        ("a red car", "A tired car.", ["colour 'red'"]),
        ("a street without people", "An empty street.", []),
        ("a street with no people", "A street with people.", ["negation 'no'"]),
        ("he doesn’t smile", "He smiles.", ["negation 'n’t'"]),
    ],
)
def test_what_is_lost(prompt, rewritten, gone):
    assert said(lost(prompt, rewritten, "English")) == gone


@pytest.mark.parametrize(
    ("prompt", "rewritten", "added"),
    [
        ("a dog runs", "A brown dog runs.", []),
        ("a dog runs", "5 dogs run, twenty of them fast.", ["number '5'", "number '20'"]),
        ("a dog runs", "One dog runs.", []),
        ("a dog runs", "A dog runs. It wears a sign.", []),
        ("a dog runs", 'A dog runs past "Joe\'s".', ['quote "Joe\'s"']),
        ("a dog runs", "A dog runs in London.", ["name 'London'"]),
        ("a dog in london", "A dog runs in London.", []),
        ("a dog barks", "A dog barks. Alice Smith waves.", ["name 'Alice'", "name 'Smith'"]),
    ],
)
def test_what_is_invented(prompt, rewritten, added):
    assert said(invented(prompt, rewritten, "English")) == added


@pytest.mark.parametrize("prompt", ["trois chats à Londres", "ein Hund im Park mit drei Katzen", "三只猫在北京"])
def test_words_of_other_languages_are_left_to_the_model(prompt):
    assert details(prompt, "English") == ()
    assert invented(prompt, "Three cats in London, Beijing, in 3 parks.", "English") == ()


def test_names_may_change_when_the_language_does():
    assert said(details("two cats in London, 5 birds", "French")) == ["number '5'"]


def test_digits_and_quotes_count_in_every_language():
    assert said(lost("5只猫「你好」", "Cats.", "English")) == ["number '5'", "quote '你好'"]
    assert lost("5只猫「你好」", 'Five cats and "你好".', "English") == ()


@pytest.mark.parametrize("text", ["A DOG IN THE PARK WITH BOB", "A Dog Runs In Central Park"])
def test_capitals_everywhere_tell_no_names(text):
    assert not [detail for detail in details(text, "English") if detail.kind == "name"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Alice runs", []),
        ("Dogs run. Cats sleep. I smile, It's fine", []),
        ("New York at night", ["New", "York"]),
        ("the mayor's son meets O'Neill and Anna's dog", ["O'Neill", "Anna"]),
    ],
)
def test_names(text, names):
    assert [detail.text for detail in details(text, "English") if detail.kind == "name"] == names


def test_quoted_strings_of_many_scripts():
    text = "\"a\" “b,” «c» 「d」 『e』 ‘f’ 'g' it's John's 'h'"
    assert quoted(text) == ("a", "b", "c", "d", "e", "f", "g", "h")


def test_faults():
    good = {"short": "A dog.", "dense": "A dog runs."}
    assert faults(good, "A dog. A dog runs.", "English", 100, ()) == []
    assert faults({"short": "A dog."}, "A dog.", "English", 100, ()) == ["the field 'dense' is missing or empty"]
    assert faults(good | {"x": "y"}, "A dog.", "English", 100, ()) == ["there is no field 'x'"]
    assert faults(good, "A" * 101, "English", 100, ()) == ["it has 101 characters; at most 100 are read"]
    assert faults(good, "一只狗在跑", "English", 100, ()) == ["it is not written in English"]
    assert faults(good, "A sign: 你好你好你好你好", "English", 100, ("你好你好你好你好",)) == []


def test_scripts():
    assert is_in_script("犬が走る", "Japanese")
    assert not is_in_script("犬が走る", "Chinese")
    assert is_in_script("Собака бежит", "Russian")
    assert is_in_script("12, 3!", "Korean")
    assert all(is_in_script("", language) for language in SCRIPTS)


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("a cat on the mat", True),
        ("cat astronaut", True),
        ("un chat dans la rue", False),
        ("der Hund und die Katze", False),
        ("una ragazza con il cane", False),
        ("un gatto in una casa con il cane", False),
        ("猫", False),
        ("", False),
        ("a man at the café", True),
    ],
)
def test_english_is_told_by_its_small_words(text, english):
    assert looks_english(text) == english
