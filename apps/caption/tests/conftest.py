"""Shards, a folder of videos, and a server on this machine that describes every clip.

Shapes: T frames, H height, W width, C channels.
"""

import json
import threading
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hy_data import ClipSample, ShardWriter, write_video

COLOURS = ((220, 20, 20), (20, 200, 20), (20, 20, 220), (200, 200, 20), (20, 20, 20))


def clip(number):
    return np.full((3, 32, 48, 3), COLOURS[number], np.uint8)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    with ShardWriter(folder, clips_per_shard=2) as writer:
        for number in range(5):
            captions = {"short": "as it was"}
            writer.write(
                ClipSample(
                    key=f"c{number}", frames_THWC=clip(number), fps=Fraction(25), captions=captions, source="in.mp4"
                )
            )
    return folder


@pytest.fixture
def footage(tmp_path):
    folder = tmp_path / "footage"
    (folder / "deep").mkdir(parents=True)
    write_video(folder / "red.mp4", clip(0), 25)
    write_video(folder / "deep" / "green.MP4.mp4", clip(1), 25)
    (folder / "deep" / "bad.mov").write_bytes(b"no video")
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden.mp4").write_bytes(b"no video")
    return folder


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.asked.append(json.loads(body))
            self.server.busy += 1
            self.server.most = max(self.server.most, self.server.busy)
            number = len(self.server.asked)
        self.server.wait(number)
        with self.server.lock:
            self.server.busy -= 1
        text = json.dumps({"short": f"Answer {number}.", "style": "film"})
        content = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    """A server; `wait` is called with the number of each request before it is answered."""
    fake = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.daemon_threads = True
    fake.handle_error = lambda *_: None
    fake.lock, fake.asked, fake.busy, fake.most, fake.wait = threading.Lock(), [], 0, 0, lambda number: None
    fake.url = f"http://127.0.0.1:{fake.server_port}/v1"
    threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield fake
    fake.shutdown()
    fake.server_close()
