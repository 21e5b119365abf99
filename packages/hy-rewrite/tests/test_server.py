import json
import time

import pytest
from hy_rewrite import RewriteError, RewriterUnavailable, prompt_text, server_rewriter
from hy_rewrite.dialogue import data
from hy_rewrite.server import ServerChat

PROMPT = "two red foxes run through snow"
QUICK = {"timeout": 0.4, "pause": 0.01, "retries": 2}
ASK = [{"role": "user", "content": "x"}]


def chat(server, **options):
    return ServerChat(server.url, "m", **{**QUICK, **options})


def test_a_prompt_is_rewritten_and_revised(server, good):
    server.replies = [server.says(good), server.says(good | {"lost": [], "invented": []})]
    result = server_rewriter(base_url=server.url, model="m", mode="master", **QUICK).explain(PROMPT)
    assert result.rewritten == prompt_text(good)
    assert (result.by, result.mode) == ("m", "master")
    asked = server.requests[0]
    assert asked["messages"][-1] == {"role": "user", "content": data(prompt=PROMPT)}
    assert (asked["model"], asked["temperature"], asked["seed"], asked["max_tokens"]) == ("m", 0, 0, 768)
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_a_busy_server_is_asked_again(server, status):
    server.replies = [server.sends(b"{}", status), server.sends(b"<html>", status), server.says("fine")]
    assert chat(server).answer(ASK) == "fine"
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_final(server, status):
    server.replies = [server.sends(b'{"error": {"message": "no\\u001b[31m such model"}}', status)]
    with pytest.raises(
        RewriterUnavailable, match=rf"^http://127.*/v1: refused \(status {status}: .*no \[31m such"
    ) as e:
        chat(server).answer(ASK)
    assert len(server.requests) == 1
    assert e.value.exit_code == 2


def test_retries_are_bounded(server):
    server.replies = [server.sends(b"{}", 500)]
    with pytest.raises(RewriterUnavailable, match=r"no answer in 3 attempts \(the last one: status 500"):
        chat(server).answer(ASK)
    assert len(server.requests) == 3


def test_pauses_grow(server, monkeypatch):
    slept = []
    monkeypatch.setattr("hy_rewrite.server.time.sleep", slept.append)
    server.replies = [server.sends(b"{}", 500)]
    with pytest.raises(RewriterUnavailable):
        chat(server, pause=0.1, retries=3).answer(ASK)
    assert slept == [0.1, 0.2, 0.4]


@pytest.mark.parametrize("wait", ["0.2", "soon", "-1", "nan"])
def test_the_server_may_say_how_long_to_wait(server, wait):
    server.replies = [server.sends(b"{}", 429, {"Retry-After": wait}), server.says("fine")]
    began = time.monotonic()
    assert chat(server).answer(ASK) == "fine"
    assert time.monotonic() - began >= (0.2 if wait == "0.2" else 0)


def test_no_server_makes_us_wait_for_long(server, monkeypatch):
    slept = []
    monkeypatch.setattr("hy_rewrite.server.time.sleep", slept.append)
    server.replies = [server.sends(b"{}", 429, {"Retry-After": "86400"}), server.says("fine")]
    assert chat(server).answer(ASK) == "fine"
    assert slept == [30.0]


def test_a_server_that_says_nothing_is_given_up(server):
    server.replies = [server.waits()]
    began = time.monotonic()
    with pytest.raises(RewriterUnavailable, match=r"no answer in 2 attempts \(the last one: no answer within 0.2 s"):
        chat(server, timeout=0.2, retries=1).answer(ASK)
    assert time.monotonic() - began < 3


def test_a_server_that_drips_is_given_up(server):
    server.replies = [server.drips()]
    began = time.monotonic()
    with pytest.raises(RewriterUnavailable, match="an answer that came too slowly"):
        chat(server, retries=0).answer(ASK)
    assert time.monotonic() - began < 3


def test_a_server_that_drips_its_headers_is_given_up(server):
    server.replies = [server.drips_headers()]
    began = time.monotonic()
    with pytest.raises(RewriterUnavailable, match="an answer that came too slowly"):
        chat(server, retries=0).answer(ASK)
    assert time.monotonic() - began < 3


def test_a_prompt_goes_nowhere_else(server):
    elsewhere = f"http://localhost:{server.http.server_address[1]}/other"
    server.replies = [server.sends(b"{}", 307, {"Location": elsewhere}), server.says("fine")]
    with pytest.raises(RewriterUnavailable, match="refused"):
        chat(server).answer(ASK)
    assert len(server.requests) == 1


def test_a_revision_that_gets_no_answer_leaves_the_draft(server, good):
    server.replies = [server.says(good), server.sends(b"{}", 500)]
    result = server_rewriter(base_url=server.url, model="m", **QUICK).explain(PROMPT)
    assert result.rewritten == prompt_text(good)


@pytest.mark.parametrize("url", ["http://[::1/v1", "ftp://x/v1", "nowhere"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(RewriteError, match="it must be like http"):
        ServerChat(url, "m")


def test_an_endless_answer_is_given_up(server):
    server.replies = [server.drips(pause=0, piece=b"x" * 65536)]
    with pytest.raises(RewriterUnavailable, match="an answer of more than 1048576 bytes"):
        chat(server, retries=0, timeout=5).answer(ASK)


@pytest.mark.parametrize(
    "body",
    [b"", b"not json", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": 3}]}', b"\xff\xfe", b"[" * 100_000],
)
def test_what_is_no_completion_is_asked_for_again(server, body):
    server.replies = [server.sends(body), server.says("fine")]
    assert chat(server).answer(ASK) == "fine"


@pytest.mark.parametrize("content", [None, 3, {"a": 1}, [1]])
def test_content_that_is_no_text_is_no_answer(server, content):
    server.replies = [server.sends(json.dumps({"choices": [{"message": {"content": content}}]}).encode())]
    assert chat(server).answer(ASK) == ""


HOSTILE = [
    "I can't help with that.",
    '{"short": "unfinished',
    '{"short": {"$ref": "#"}, "dense": ["x"]}',
    '{"rewritten": "rm -rf /"}',
    "{" * 50_000,
    '{"short": "\\u001b]0;x\\u0007", "dense": "\\ud800"}',
]


@pytest.mark.parametrize("content", HOSTILE)
def test_hostile_content_keeps_the_original(server, content):
    server.replies = [server.says(content)]
    result = server_rewriter(base_url=server.url, model="m", **QUICK).explain(PROMPT)
    assert result.rewritten == PROMPT
    assert result.fallback


def test_nobody_listens():
    with pytest.raises(RewriterUnavailable, match=r"127\.0\.0\.1:9/v1: no answer in 2 attempts"):
        ServerChat("http://127.0.0.1:9/v1", "m", retries=1, pause=0.01).answer(ASK)


def test_no_key_is_sent_but_the_one_that_is_named(server, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "of-another-server")
    monkeypatch.setenv("MY_KEY", "mine")
    server.replies = [server.says("fine")]
    chat(server).answer(ASK)
    chat(server, key_variable="MY_KEY").answer(ASK)
    assert [headers["authorization"] for headers in server.headers] == ["Bearer none", "Bearer mine"]
    assert "of-another-server" not in str(server.headers)


def test_a_key_that_is_not_set_is_said(server, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(RewriteError, match="the environment variable MY_KEY is not set"):
        chat(server, key_variable="MY_KEY")


def test_a_password_in_the_address_is_in_no_message():
    with pytest.raises(RewriterUnavailable) as caught:
        ServerChat("http://me:secret@127.0.0.1:9/v1", "m", retries=0).answer(ASK)
    assert "secret" not in str(caught.value)
    assert "http://127.0.0.1:9/v1" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "timeout is 0; it must be at least 0.01"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"retries": -1}, "retries is -1; it must be at least 0"),
        ({"pause": float("inf")}, "pause is inf"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"base_url": "localhost:8000"}, "base_url is 'localhost:8000'; it must be like http://127.0.0.1:8000/v1"),
        ({"base_url": "file:///etc/passwd"}, "base_url is 'file:///etc/passwd'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(RewriteError, match=message):
        server_rewriter(**{"base_url": "http://127.0.0.1:9/v1", "model": "m", **options})


@pytest.mark.parametrize("key", ["", "schl\u00fcssel", "a\nb"])
def test_a_key_that_is_none_is_refused(monkeypatch, key):
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(RewriteError, match=r"MY_KEY .*; it must hold the server's key"):
        ServerChat("http://127.0.0.1:1/v1", "m", key_variable="MY_KEY")
