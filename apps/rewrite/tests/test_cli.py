import json
from pathlib import Path

import pytest
from hy_plugins import Plugins, UnknownComponent
from hy_rewrite import FIELDS, RewriteError, read_pairs
from hyvideo_rewrite import plugin
from hyvideo_rewrite.cli import main


def test_the_command_is_offered():
    plugins = Plugins(discover=False)
    plugins.register(plugin, name="rewrite")
    assert plugins.load("command", "rewrite") is main


def test_the_rewrite_alone_is_printed(capsys):
    assert main(["a red [bold]fox, golden hour"]) == 0
    told = capsys.readouterr()
    assert told.out == "A red [bold]fox. Golden hour.\n"
    assert "note" not in told.err


@pytest.mark.parametrize(
    ("argv", "name", "options"),
    [
        ([], "template", {}),
        (["--model", "m", "--mode", "master"], "local", {"model": "m", "mode": "master"}),
        (
            ["--model", "m", "--base-url", "u", "--timeout", "3"],
            "server",
            {"model": "m", "base_url": "u", "timeout": 3.0},
        ),
        (["--rewriter", "mine", "--max-length", "300"], "mine", {"max_length": 300}),
        (["--model", "m", "--adapter", "a", "--rounds", "0"], "local", {"model": "m", "adapter": "a", "rounds": 0}),
    ],
)
def test_who_rewrites_follows_from_what_is_given(chosen, argv, name, options):
    assert main(["a fox", *argv]) == 0
    assert chosen == [(name, options)]


def test_a_fallback_is_noted(chosen, capsys):
    main(["babble fox", "--model", "m"])
    told = capsys.readouterr()
    assert told.out == "babble fox\n"
    assert "note: the prompt stays as it is: the answer held no JSON object" in told.err


def test_explain_shows_original_rewrite_fields_and_notes(chosen, capsys):
    main(["2 red foxes", "--model", "m", "--explain"])
    told = " ".join(capsys.readouterr().out.split())
    for part in ("original", "2 red foxes. 2 red foxes [bold]run.", "dense", "nothing lost", "rule, normal"):
        assert part in told
    main(["babble \x1b[31m", "--model", "m", "--explain"])
    told = capsys.readouterr().out
    assert "the original is kept: the answer held no JSON object" in told
    assert "\x1b" not in told


def test_json_has_all_of_it(chosen, capsys):
    main(["2 red foxes", "--model", "m", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["original"] == "2 red foxes"
    assert told["fields"]["short"] == "2 red foxes"
    assert told["rounds"][0]["lost"] == []
    assert told["fallback"] is None
    main(["一只狐狸\x9b", "--json"])
    assert capsys.readouterr().out.isascii()


def test_pairs_are_collected_and_a_run_goes_on(chosen, capsys):
    Path("prompts.txt").write_text("2 foxes\nbabble\n3 cats\n")
    argv = ["collect", "prompts.txt", "--out", "pairs.jsonl", "--model", "m", "--workers", "2"]
    assert main(argv) == 0
    told = capsys.readouterr()
    assert told.out == "pairs.jsonl: 2 pairs added, 1 prompts rejected\n"
    assert "rejected: 'babble': the answer held no JSON object with the fields" in " ".join(told.err.split())
    assert {pair.prompt for pair in read_pairs("pairs.jsonl")} == {"2 foxes", "3 cats"}
    assert main(argv) == 1
    told = capsys.readouterr()
    assert told.out == "pairs.jsonl: 0 pairs added, 1 prompts rejected\n"
    assert "has 2 of them already" in told.err
    Path("prompts.txt").write_text("2 foxes\n")
    assert main(argv) == 0


def test_pairs_are_evaluated(chosen, capsys):
    fields = dict.fromkeys(FIELDS[:2], "A fox.")
    line = json.dumps({"prompt": "2 foxes", "fields": fields, "mode": "normal", "language": "English"})
    Path("pairs.jsonl").write_text(line + "\n")
    assert main(["evaluate", "pairs.jsonl"]) == 0
    assert not chosen
    told = capsys.readouterr().out
    assert "1 rewrites" in told
    assert "0 of 1 (0.0%)" in told
    main(["evaluate", "pairs.jsonl", "--model", "m", "--json"])
    assert chosen == [("local", {"model": "m"})]
    assert json.loads(capsys.readouterr().out)["kept"]["number"] == {"count": 1, "of": 1}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a fox", "--mode", "master"], "mode 'master' needs a model: give model"),
        (["a fox", "--rewriter", "local"], "the rewriter 'local' needs model"),
        (["a fox", "--model", "gone/model"], "gone/model: no such folder; if you mean a repository on the hub"),
        (["collect", "gone.txt", "--out", "p", "--model", "m", "--workers", "0"], "workers is 0"),
        (["collect", "gone.txt", "--out", "p", "--model", "m"], "gone.txt: can't be read"),
        (["collect", "here.txt", "--out", "p"], "the rewriter 'template' asks no model"),
        (["evaluate", "gone.jsonl"], "gone.jsonl: can't be read"),
        (["evaluate", "here.txt"], "here.txt, line 1: is no JSON"),
    ],
)
def test_bad_input_is_one_message(argv, message):
    Path("here.txt").write_text("a fox\n")
    with pytest.raises(RewriteError, match=message) as caught:
        main(argv)
    assert caught.value.exit_code == 2


def test_an_unknown_rewriter_is_named():
    with pytest.raises(UnknownComponent, match="nobody"):
        main(["a fox", "--rewriter", "nobody"])


@pytest.mark.parametrize(
    "argv", [[], ["a", "b"], ["a", "--explain", "--json"], ["collect", "a"], ["a", "--rounds", "x"]]
)
def test_what_cannot_be_read_ends_with_code_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert "hyvideo rewrite" in capsys.readouterr().err


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for part in ("rewrite collect prompts.txt", "rewrite evaluate pairs.jsonl", "--mode NAME", "(default English)"):
        assert part in text
