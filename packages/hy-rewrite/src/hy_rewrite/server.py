"""Rewriting with any server that speaks the OpenAI protocol. Needs the extra `server` when it is used.

Nothing is sent anywhere unless a base URL is given, and no key but that of the environment variable that is named:
the client's own variables are left alone, since they may belong to another server.
"""

import json
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hy_rewrite.dialogue import Message
from hy_rewrite.errors import RewriteError, RewriterUnavailable
from hy_rewrite.fields import clean
from hy_rewrite.rewriter import MAX_LENGTH, ROUNDS, ChatRewriter, Options

_RETRIED = (408, 409, 425, 429)
_LONGEST_PAUSE = 30.0
_GRACE = 0.5  # seconds in which an answer that took its whole time is read and judged
_MAX_BYTES = 1 << 20


def server_rewriter(
    *,
    base_url: str,
    model: str,
    key_variable: str | None = None,
    mode: str = "normal",
    language: str = "English",
    rounds: int = ROUNDS,
    max_length: int = MAX_LENGTH,
    timeout: float = 60.0,
    retries: int = 3,
    pause: float = 1.0,
    max_new_tokens: int = 768,
) -> ChatRewriter:
    """Return a rewriter that asks a server, at temperature 0.

    Args:
        base_url: Where it is, such as `http://127.0.0.1:8000/v1`.
        model: What it calls the model.
        key_variable: The environment variable that holds its key; None sends none.
        mode: See `Options`, as the next three.
        language: What the rewrites are written in.
        rounds: Of self-revision.
        max_length: Characters that a rewrite may have.
        timeout: Seconds that one answer may take.
        retries: How often to ask again where the server is busy, fails, or doesn't answer in time.
        pause: Seconds before the first of them; each later pause is twice as long, 30 s at most.
        max_new_tokens: Tokens that one answer may have.

    Raises:
        RewriteError: An option is out of its range, the variable isn't set, or the client isn't installed.
    """
    options = Options(mode=mode, language=language, rounds=rounds, max_length=max_length)
    return ChatRewriter(
        ServerChat(
            base_url,
            model,
            key_variable=key_variable,
            timeout=timeout,
            retries=retries,
            pause=pause,
            max_new_tokens=max_new_tokens,
        ),
        options,
    )


class ServerChat:
    """A model behind a server; safe to use from several threads. The arguments are those of `server_rewriter`."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key_variable: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
        pause: float = 1.0,
        max_new_tokens: int = 768,
    ) -> None:
        for name, value, least in (("timeout", timeout, 0.01), ("retries", retries, 0), ("pause", pause, 0.0)):
            if not least <= value < float("inf"):
                raise RewriteError(f"{name} is {value}; it must be at least {least}")
        if max_new_tokens < 1:
            raise RewriteError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
        self.name = model
        self.timeout = timeout
        self.retries = retries
        self.pause = pause
        self.max_new_tokens = max_new_tokens
        self._place = _place(base_url)
        self._client = _client(base_url, _key(key_variable), timeout)

    def answer(self, messages: Sequence[Message]) -> str:
        """Return the server's answer, at most a megabyte of it.

        Raises:
            RewriterUnavailable: The server refuses, or still gave none after the retries.
        """
        for attempt in range(self.retries + 1):
            try:
                return self._ask_in_time(messages)
            except _Busy as busy:
                if attempt == self.retries:
                    raise RewriterUnavailable(
                        f"{self._place}: no answer in {attempt + 1} attempts (the last one: {busy.reason})"
                    ) from busy
                time.sleep(min(max(busy.wait, self.pause * 2**attempt), _LONGEST_PAUSE))
        raise AssertionError("unreachable")

    def _ask_in_time(self, messages: Sequence[Message]) -> str:
        """Ask in a thread that is left behind where it takes too long: transports bound single reads alone."""
        outcome: list[str | BaseException] = []

        def ask() -> None:
            try:
                outcome.append(self._ask(messages))
            except BaseException as error:  # raised again by the one who waits
                outcome.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(self.timeout + _GRACE)
        if not outcome:
            raise _Busy("an answer that came too slowly")
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def _ask(self, messages: Sequence[Message]) -> str:
        import openai

        ends = time.monotonic() + self.timeout
        try:
            with self._client.chat.completions.with_streaming_response.create(
                model=self.name, messages=list(messages), temperature=0, seed=0, max_tokens=self.max_new_tokens
            ) as response:
                body = _read(response, ends)
        except openai.APIStatusError as error:
            reason = f"status {error.status_code}: {clean(str(error))[:200]}"
            if error.status_code in _RETRIED or error.status_code >= 500:
                raise _Busy(reason, _retry_after(error.response.headers)) from error
            raise RewriterUnavailable(f"{self._place}: refused ({reason})") from error
        except openai.APITimeoutError as error:
            raise _Busy(f"no answer within {self.timeout:g} s") from error
        except openai.OpenAIError as error:
            raise _Busy(clean(str(error.__cause__ or error))[:200]) from error
        return _content(body)


@dataclass
class _Busy(Exception):
    """No answer this time; perhaps after `wait` seconds."""

    reason: str
    wait: float = 0.0


def _client(base_url: str, key: str | None, timeout: float) -> Any:
    try:
        import openai
    except ImportError as error:
        raise RewriteError("a server needs the openai client: pip install 'hy-rewrite[server]'") from error
    transport = openai.DefaultHttpxClient(follow_redirects=False)  # a prompt goes to the server that was named, alone
    client = openai.OpenAI(
        base_url=base_url, api_key=key or "none", timeout=timeout, max_retries=0, http_client=transport
    )
    client.organization = client.project = None  # which the environment may name, for another server
    return client


def _read(response: Any, ends: float) -> bytes:
    """A response's body, read in pieces: one that drips, or never ends, is given up."""
    body = bytearray()
    try:
        for piece in response.iter_bytes():
            body += piece
            if len(body) > _MAX_BYTES:
                raise _Busy(f"an answer of more than {_MAX_BYTES} bytes")
            if time.monotonic() > ends:
                raise _Busy("an answer that came too slowly")
    except _Busy:
        raise
    except Exception as error:  # each of the client's transports has errors of its own
        raise _Busy(f"an answer that broke off ({type(error).__name__})") from error
    return bytes(body)


def _content(body: bytes) -> str:
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise _Busy("an answer that is no chat completion") from error
    return content if isinstance(content, str) else ""


def _retry_after(headers: Any) -> float:
    try:
        return max(0.0, float(headers.get("retry-after", 0)))
    except ValueError:
        return 0.0


def _place(base_url: str) -> str:
    """A server's address for messages: without a password that stands in it."""
    try:
        parts = urlsplit(base_url)
    except ValueError as error:
        raise RewriteError(f"base_url is {base_url!r}; it must be like http://127.0.0.1:8000/v1") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RewriteError(f"base_url is {base_url!r}; it must be like http://127.0.0.1:8000/v1")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key or not key.isascii() or not key.isprintable():
        what = "holds characters that no key has" if key else "is not set"
        raise RewriteError(f"the environment variable {variable} {what}; it must hold the server's key")
    return key
