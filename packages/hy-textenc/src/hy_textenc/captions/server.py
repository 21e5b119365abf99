"""Captions by a vision-language model behind an OpenAI-compatible server; needs the extra `server` when it is made.

Frames go to the server that is named, and nowhere else: none is the default, redirects are not followed.
"""

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hy_textenc.captions.answers import Turn, obtain
from hy_textenc.captions.errors import CaptionerError, shown
from hy_textenc.captions.frames import ImageFormat, clip_name, data_url, pictures
from hy_textenc.captions.instructions import request
from hy_textenc.captions.schema import caption_schema

if TYPE_CHECKING:
    import openai

_MOST_BYTES = 4 * 2**20
_LONGEST_PAUSE = 120.0  # seconds that the client waits before an attempt, where a server asks for it
_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "caption", "strict": True, "schema": caption_schema()},
}


class ServerCaptioner:
    """Asks a server's model, several clips at a time if called from several threads.

    Where the server refuses a schema (status 400), it is asked without one from then on. Errors 408, 409, 429 and above
    499, lost connections and timeouts are tried again, with growing pauses or those that the server asks for.

    Args:
        base_url: of the API, such as `http://127.0.0.1:8000/v1`.
        model: the model's name there.
        key_env: the environment variable that holds the API key; empty sends none.
        frames: how many frames of a clip are shown at most.
        side: their longer side in pixels, at most.
        image_format: how frames are sent: "jpeg" or "png".
        language: of the captions.
        max_tokens: longest answer.
        temperature: 0 gives the likeliest answer.
        timeout: seconds until a request counts as lost, at each attempt.
        retries: how often a request is tried again.

    Raises:
        CaptionerError: an option is missing or out of range, the key is not set, or the extra is not installed.
    """

    def __init__(
        self,
        *,
        base_url: str = "",
        model: str = "",
        key_env: str = "",
        frames: int = 8,
        side: int = 512,
        image_format: ImageFormat = "jpeg",
        language: str = "English",
        max_tokens: int = 1500,
        temperature: float = 0.0,
        timeout: float = 120.0,
        retries: int = 4,
    ) -> None:
        _check_place(base_url, model)
        for name, value, least in (("frames", frames, 1), ("side", side, 16), ("max_tokens", max_tokens, 16)):
            if value < least:
                raise CaptionerError(f"{name} is {value}; it must be at least {least}")
        if not timeout > 0 or retries < 0:
            raise CaptionerError(f"timeout is {timeout} and retries {retries}; need above 0, and at least 0")
        if image_format not in ("jpeg", "png"):
            raise CaptionerError(f"image_format is {shown(image_format)}; it must be jpeg or png")
        self.frames, self.side = frames, side
        self.image_format: ImageFormat = image_format
        self.timeout = timeout
        self._attempts = retries + 1
        self.language = language
        self._settings = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
        self._where = base_url
        self._takes_schema = True
        self._client = _client(base_url, _key(key_env), timeout, retries)

    def caption(self, sample: Mapping[str, Any]) -> Mapping[str, Any]:
        """Describe a clip.

        Args:
            sample: `frames_THWC`, uint8 RGB of shape (T, H, W, 3); for the request and messages `fps`, `key`, `source`
                and `start`, where there are any.

        Returns:
            the fields of `Caption` that hold something, `short` among them.

        Raises:
            CaptionError: the model's answer can't be used, nor the one after it was told why; names the clip.
            CaptionerError: the server can't be reached, or refuses.
        """
        chosen = pictures(sample, self.frames, self.side)
        content: list[dict[str, Any]] = [{"type": "text", "text": request(sample, len(chosen), self.language)}]
        for picture in chosen:
            content.append({"type": "image_url", "image_url": {"url": data_url(picture, self.image_format)}})

        def ask(turns: Sequence[Turn]) -> str:
            rest = [{"role": role, "content": text} for role, text in turns]
            return self._answer([{"role": "user", "content": content}, *rest])

        return obtain(ask, clip_name(sample)).to_mapping()

    def _answer(self, messages: list[dict[str, Any]]) -> str:
        """The text of the model's answer, with a schema where the server takes one."""
        import openai

        if not self._takes_schema:
            return self._text(self._request(messages, {}))
        try:
            return self._text(self._request(messages, {"response_format": _FORMAT}))
        except CaptionerError as error:
            if not isinstance(error.__cause__, openai.BadRequestError):
                raise
        text = self._text(self._request(messages, {}))
        self._takes_schema = False  # it was the schema that was refused: without it the same request is answered
        return text

    def _request(self, messages: list[dict[str, Any]], more: dict[str, Any]) -> bytes:
        """As `_requested`, in a thread that is left behind if it takes too long: transports bound single reads."""
        outcome: list[bytes | BaseException] = []

        def ask() -> None:
            try:
                outcome.append(self._requested(messages, more))
            except BaseException as error:  # raised again by the one who waits
                outcome.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join((self.timeout + _LONGEST_PAUSE) * self._attempts)
        if not outcome:
            raise CaptionerError(f"{self._where}: the answer is not complete in time")
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def _requested(self, messages: list[dict[str, Any]], more: dict[str, Any]) -> bytes:
        """Send a request, and read its answer within the time and length that an answer may have."""
        import openai

        try:
            completions: Any = self._client.chat.completions.with_streaming_response
            with completions.create(messages=messages, **self._settings, **more) as response:
                return _body(response.iter_bytes(), time.monotonic() + self.timeout)
        except openai.APIStatusError as error:
            said = shown(" ".join(error.message.split()))
            raise CaptionerError(f"{self._where} answers with status {error.status_code}: {said}") from error
        except openai.APITimeoutError as error:
            raise CaptionerError(f"{self._where} does not answer within {self.timeout:g} seconds") from error
        except openai.APIConnectionError as error:
            raise CaptionerError(f"{self._where} can't be reached: {error.__cause__ or error}") from error
        except CaptionerError as error:
            raise CaptionerError(f"{self._where}: {error}") from error

    def _text(self, body: bytes) -> str:
        """The model's text in a chat completion; one that is refused or empty is no text."""
        try:
            content = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise CaptionerError(f"{self._where} gives {shown(body)}, which is no chat completion") from error
        return content if isinstance(content, str) else ""


def _check_place(base_url: str, model: str) -> None:
    if not base_url:
        told = "vlm-server needs base_url: frames are sent only where you say, such as http://127.0.0.1:8000/v1"
        raise CaptionerError(f"{told} (vLLM, llama.cpp, Ollama or any OpenAI-compatible server)")
    try:
        parts = urlsplit(base_url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CaptionerError(f"base_url is {shown(base_url)}; it must begin with http:// or https:// and name a host")
    if parts.username or parts.password:
        raise CaptionerError("base_url holds a user's name or password; give the key through key_env")
    if not model:
        raise CaptionerError(f"vlm-server needs model: the name of a model at {base_url}, as {base_url}/models lists")


def _key(key_env: str) -> str:
    """The API key; a word that says there is none, which the client insists on."""
    if not key_env:
        return "none"
    key = os.environ.get(key_env, "").strip()
    if not key:
        raise CaptionerError(f"key_env names {key_env}, which is not set; set it to the API key, or leave key_env out")
    return key


def _client(base_url: str, key: str, timeout: float, retries: int) -> "openai.OpenAI":
    try:
        import openai
    except ImportError as error:
        raise CaptionerError("vlm-server needs the extra `server`: pip install 'hy-textenc[server]'") from error
    http_client = openai.DefaultHttpxClient(follow_redirects=False)
    client = openai.OpenAI(
        base_url=base_url, api_key=key, timeout=timeout, max_retries=retries, http_client=http_client
    )
    client.organization = client.project = None  # which it takes from the environment: they are nothing to this server
    return client


def _body(chunks: Any, deadline: float) -> bytes:
    """Read an answer to its end; a server that sends for ever is left."""
    content = b""
    try:
        for chunk in chunks:
            content += chunk
            if len(content) > _MOST_BYTES:
                raise CaptionerError(f"the answer is longer than {_MOST_BYTES} bytes")
            if time.monotonic() > deadline:
                raise CaptionerError("the answer is not complete in time")
    except CaptionerError:
        raise
    except Exception as error:  # of the HTTP library, which differs between versions of the client
        raise CaptionerError(f"the answer breaks off ({type(error).__name__})") from error
    return content
