import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hy_rewrite import (
    ChatRewriter,
    Options,
    RewriteError,
    RewriterUnavailable,
    collect,
    read_pairs,
    read_prompts,
    remaining,
)
from hy_rewrite.collecting import GIVE_UP

PROMPTS = [f"{number} red foxes" for number in range(2, 8)]


class Model:
    """Rewrites by rule; what `bad` says about a prompt happens instead."""

    name = "rule"

    def __init__(self, bad=None):
        self.bad, self.asked = bad or {}, []

    def answer(self, messages):
        asked = json.loads(messages[-1]["content"])["prompt"]
        self.asked.append(asked)
        wrong = self.bad.get(asked)
        if isinstance(wrong, Exception):
            time.sleep(0.002)
            raise wrong
        text = wrong or asked
        return json.dumps({"short": text, "dense": f"{text} run."})


def rewriter(bad=None, **options):
    return ChatRewriter(Model(bad), Options(**options))


@pytest.mark.parametrize("workers", [1, 4])
def test_every_prompt_becomes_a_pair(tmp_path, workers):
    found = list(collect(rewriter(), PROMPTS, tmp_path / "p.jsonl", workers=workers))
    pairs = read_pairs(tmp_path / "p.jsonl")
    assert sorted(pair.prompt for pair in pairs) == PROMPTS
    assert [one.pair for one in found] == pairs
    assert pairs[0].fields["dense"] == f"{pairs[0].prompt} run."
    assert (pairs[0].mode, pairs[0].language, pairs[0].by) == ("normal", "English", "rule")
    assert not (tmp_path / "p.rejected.jsonl").exists()


def test_bad_ones_are_told_apart_and_the_rest_goes_on(tmp_path):
    bad = {PROMPTS[1]: "foxes", PROMPTS[3]: RewriterUnavailable("timed out"), PROMPTS[4]: RewriteError("too long")}
    found = list(collect(rewriter(bad, rounds=0), PROMPTS, tmp_path / "p.jsonl"))
    reasons = {one.prompt: one.reason for one in found if one.pair is None}
    assert reasons == {
        PROMPTS[1]: "lost: number '3' (and 1 more)",
        PROMPTS[3]: "timed out",
        PROMPTS[4]: "too long",
    }
    rejected = [json.loads(line) for line in (tmp_path / "p.rejected.jsonl").read_text().splitlines()]
    assert {one["prompt"]: one["reason"] for one in rejected} == reasons
    assert next(one for one in rejected if one["prompt"] == PROMPTS[1])["rounds"][0]["text"] == "Foxes. Foxes run."
    assert len(read_pairs(tmp_path / "p.jsonl")) == 3


def test_a_run_goes_on_where_it_was(tmp_path):
    file = tmp_path / "p.jsonl"
    list(collect(rewriter(), PROMPTS[:3], file))
    assert remaining(PROMPTS, file, Options()) == PROMPTS[3:]
    assert remaining(PROMPTS, file, Options(mode="master")) == PROMPTS
    assert remaining(PROMPTS, file, Options(language="French")) == PROMPTS
    model = rewriter()
    list(collect(model, remaining(PROMPTS, file, Options()), file))
    assert sorted(pair.prompt for pair in read_pairs(file)) == PROMPTS
    assert not set(model.chat.asked) & set(PROMPTS[:3])


def test_half_a_line_is_taken_away_and_a_whole_one_stays(tmp_path):
    file = tmp_path / "p.jsonl"
    list(collect(rewriter(), PROMPTS[:2], file))
    whole = file.read_text()
    file.write_text(whole + '{"prompt": "4 red')
    assert remaining(PROMPTS, file, Options()) == PROMPTS[2:]
    assert file.read_text() == whole
    file.write_text(whole.rstrip("\n"))
    assert remaining(PROMPTS, file, Options()) == PROMPTS[2:]
    assert file.read_text() == whole


def test_rejected_ones_are_asked_again_and_told_anew(tmp_path):
    file = tmp_path / "p.jsonl"
    list(collect(rewriter({PROMPTS[0]: RewriterUnavailable("x")}), PROMPTS, file))
    assert remaining(PROMPTS, file, Options()) == PROMPTS[:1]
    list(collect(rewriter(), PROMPTS[:1], file))
    assert not (tmp_path / "p.rejected.jsonl").exists()


def test_a_dead_server_ends_it(tmp_path):
    prompts = [f"{number} foxes" for number in range(50)]
    bad = {prompt: RewriterUnavailable("refused") for prompt in prompts[3:]}
    model = rewriter(bad)
    with pytest.raises(RewriterUnavailable, match=f"{GIVE_UP} prompts in a row got no answer; the last one: refused"):
        list(collect(model, prompts, tmp_path / "p.jsonl"))
    assert len(read_pairs(tmp_path / "p.jsonl")) == 3
    assert len(model.chat.asked) < 40


def test_failures_between_answers_do_not_end_it(tmp_path):
    prompts = [f"{number} foxes" for number in range(40)]
    bad = {prompt: RewriterUnavailable("x") for prompt in prompts if prompts.index(prompt) % 2}
    assert len(list(collect(rewriter(bad), prompts, tmp_path / "p.jsonl"))) == 40


def test_a_mistake_of_ours_is_not_taken_for_a_bad_prompt(tmp_path):
    with pytest.raises(ZeroDivisionError):
        list(collect(rewriter({PROMPTS[0]: ZeroDivisionError()}), PROMPTS, tmp_path / "p.jsonl"))


def test_two_cannot_add_to_one_file(tmp_path):
    running = collect(rewriter(), PROMPTS, tmp_path / "p.jsonl")
    next(running)
    with pytest.raises(RewriteError, match="another process is adding to it"):
        next(collect(rewriter(), PROMPTS, tmp_path / "p.jsonl"))
    running.close()


KILLED = """
import json, sys, time
from hy_rewrite import ChatRewriter, Options, collect
class Slow:
    name = "slow"
    def answer(self, messages):
        time.sleep(0.01)
        return json.dumps({"short": "foxes", "dense": "foxes run"})
for found in collect(ChatRewriter(Slow(), Options(rounds=0)), [f"foxes {'x' * n}" for n in range(1, 999)], sys.argv[1]):
    print(found.prompt, flush=True)
"""


def test_what_is_written_survives_a_kill(tmp_path):
    file = tmp_path / "p.jsonl"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(file)], stdout=subprocess.PIPE, text=True)
    told = [process.stdout.readline() for _ in range(5)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    told += process.stdout.readlines()
    remaining(["x"], file, Options())
    assert {prompt.strip() for prompt in told} <= {pair.prompt for pair in read_pairs(file)}


def test_prompts_are_lines(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffa dog\r\n\n  一只猫 \na dog\n".encode())
    assert read_prompts(tmp_path / "a.txt") == ["a dog", "一只猫"]


@pytest.mark.parametrize(
    ("content", "message"), [(b"\n \n", "holds no prompt"), (b"\xff\xfe", "can't be read as UTF-8")]
)
def test_a_file_without_prompts_is_refused(tmp_path, content, message):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(RewriteError, match=message):
        read_prompts(tmp_path / "a.txt")


def test_stopping_early_asks_nothing_more(tmp_path):
    model = rewriter({prompt: None for prompt in PROMPTS})
    slow, answer = [], model.chat.answer

    def slowly(messages):
        time.sleep(0.05)
        slow.append(1)
        return answer(messages)

    model.chat.answer = slowly
    running = collect(model, PROMPTS * 5, tmp_path / "p.jsonl")
    next(running)
    running.close()
    assert len(slow) < 8


INTERRUPTED = """
import signal, sys, time
from hy_rewrite import ChatRewriter, collect
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell begin deaf to it
class Stuck:
    name = "stuck"
    def answer(self, messages):
        time.sleep(60)
for found in collect(ChatRewriter(Stuck()), ["a fox"], sys.argv[1], workers=2):
    pass
"""


def test_an_interrupted_run_ends_at_once(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(tmp_path / "p.jsonl")], stderr=subprocess.PIPE)
    while not (tmp_path / "p.jsonl").exists():
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate(timeout=10)[1]
