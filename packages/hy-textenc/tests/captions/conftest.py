"""A clip, and a server on this machine that answers as it is told.

Shapes: T frames, H height, W width, C channels.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

CAPTION = {
    "short": "A red square moves right.",
    "dense": "",
    "background": "black",
    "style": "animation",
    "shot_type": "unknown",
    "lighting": "",
    "atmosphere": "",
    "camera_movement": "static shot",
    "camera_confidence": 0.9,
    "tags": ["square"],
}


class FakeServer(ThreadingHTTPServer):
    """Plays a list of replies, the last of them for ever; keeps what it was asked.

    A reply is (status, body), or a callable that gets the handler and writes what it likes.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.replies = [says(json.dumps(CAPTION))]
        self.requests = []
        self.lock = threading.Lock()
        self.closing = threading.Event()

    def handle_error(self, request, client_address):
        pass  # a client that leaves in the middle is what some tests are about


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(
                {"path": self.path, "headers": {n.title(): v for n, v in self.headers.items()}, **body}
            )
            reply = self.server.replies[0]
            if len(self.server.replies) > 1:
                del self.server.replies[0]
        if callable(reply):
            reply(self)
        else:
            self.reply(*reply)

    def reply(self, status, body, **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def says(text):
    """A chat completion with that text."""
    message = {"role": "assistant", "content": text}
    return 200, {"id": "1", "object": "chat.completion", "choices": [{"index": 0, "message": message}]}


def fails(status, message="no"):
    return status, {"error": {"message": message}}


def silent(handler):
    """Takes the request and says nothing."""
    handler.server.closing.wait(10)
    handler.close_connection = True


def drips(handler):
    """Sends an answer that never ends, a few bytes at a time."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while not handler.server.closing.wait(0.02):
        handler.wfile.write(b"1\r\n \r\n")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fake = FakeServer()
    thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield fake
    fake.closing.set()
    fake.shutdown()
    fake.server_close()


@pytest.fixture
def replies():
    """The ways to reply."""
    return {"says": says, "fails": fails, "silent": silent, "drips": drips, "caption": CAPTION}


@pytest.fixture
def no_pauses(monkeypatch):
    """Retries without the pauses before them; gives the list of their lengths."""
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


@pytest.fixture
def sample():
    """Twenty frames of 48 x 96 with a red square that moves; frame n is n bright."""
    frames_THWC = np.zeros((20, 48, 96, 3), np.uint8)
    for number, frame_HWC in enumerate(frames_THWC):
        frame_HWC[:] = number
        frame_HWC[10:20, 2 * number : 2 * number + 10] = (255, 0, 0)
    return {"frames_THWC": frames_THWC, "fps": 10, "key": "00007-00000000", "source": "in.mp4", "start": 0}
