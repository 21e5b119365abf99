"""Shards by URL: read in parts, from a server on this machine; what a server can't do is said."""

import errno
import io
import os
import threading
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hy_data.errors import DataError, Unreachable
from hy_data.index import index_shard, index_shards
from hy_data.places import find_shards, read_range, stamp
from hy_data.shards import ClipSample, ShardWriter
from hy_plugins import HyError

pytest.importorskip("fsspec", reason="needs the extra train")
pytest.importorskip("aiohttp", reason="needs the extra train")


class Ranges(SimpleHTTPRequestHandler):
    """Serves files, and parts of them; `asked` lists the parts.

    `failures` says how many requests for parts fail first, `refusals` how many of the others.
    """

    gives_parts = True

    def log_message(self, *arguments):
        pass

    def refused(self):
        if self.headers.get("Range") or not self.server.refusals:
            return False
        self.server.refusals -= 1
        self.send_error(503)
        return True

    def do_HEAD(self):
        if not self.refused():
            super().do_HEAD()

    def do_GET(self):
        if self.refused():
            return
        wanted = self.headers.get("Range")
        if wanted and self.server.failures:
            self.server.failures -= 1
            self.send_error(503)
            return
        if not wanted or not self.gives_parts:
            super().do_GET()
            return
        with open(self.translate_path(self.path), "rb") as file:
            content = file.read()
        first, last = wanted.removeprefix("bytes=").split("-")
        part = content[int(first) : int(last or len(content)) + 1]
        self.server.asked.append(len(part))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


class Whole(Ranges):
    gives_parts = False


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(handler=Ranges):
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path / "shards")))
        server.asked, server.failures, server.refusals = [], 0, 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server, f"http://127.0.0.1:{server.server_address[1]}"

    with ShardWriter(tmp_path / "shards", clips_per_shard=2) as writer:
        import numpy as np

        for number in range(4):
            frames_THWC = np.full((5, 32, 32, 3), 50 * number, np.uint8)
            captions = {"short": f"clip {number}"}
            writer.write(ClipSample(key=f"k{number}", frames_THWC=frames_THWC, fps=Fraction(25), captions=captions))
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr("hy_data.places._PAUSE", 0.0)


def test_a_server_gives_what_the_disk_gives(serve, tmp_path):
    _, url = serve()
    near = index_shards(tmp_path / "shards")
    far = index_shards(f"{url}/clips-{{000000..000001}}.tar", folder=tmp_path / "index")
    assert [(c.key, c.sha256, c.offset) for c in far] == [(c.key, c.sha256, c.offset) for c in near]
    assert far[3].shard == f"{url}/clips-000001.tar"
    assert (far[2].read(1, 3) == near[2].read(1, 3)).all()
    before = stamp(far[0].shard)
    assert before == stamp(far[0].shard)
    os.utime(tmp_path / "shards" / "clips-000000.tar", (0, 0))
    assert before != stamp(far[0].shard)


def test_only_the_clip_is_fetched(serve):
    server, url = serve()
    clip = index_shards(f"{url}/clips-000000.tar")[1]
    server.asked.clear()
    clip.load()
    assert server.asked == [clip.size]


def test_a_folder_of_a_server_is_listed(serve):
    _, url = serve()
    assert find_shards([f"{url}/"]) == [f"{url}/clips-000000.tar", f"{url}/clips-000001.tar"]


def test_the_index_of_a_url_is_kept_where_it_is_wanted(serve, tmp_path, monkeypatch):
    _, url = serve()
    place = f"{url}/clips-000000.tar"
    first = index_shards(place, folder=tmp_path / "index")
    monkeypatch.setattr("hy_data.index.index_shard", lambda shard: pytest.fail(f"{shard} was read again"))
    assert [clip.key for clip in index_shards(place, folder=tmp_path / "index")] == [clip.key for clip in first]


def test_a_server_that_fails_is_asked_again(serve):
    server, url = serve()
    clip = index_shards(f"{url}/clips-000000.tar")[0]
    server.failures = 2
    clip.load()
    server.failures = 3
    with pytest.raises(Unreachable, match=r"clips-000000\.tar can't be read: .*503"):
        clip.load()


def test_its_tag_is_asked_for_again(serve):
    """Each time it is asked with HEAD and then with GET."""
    server, url = serve()
    place = f"{url}/clips-000000.tar"
    wanted = stamp(place)
    server.refusals = 4
    assert stamp(place) == wanted
    server.refusals = 6
    with pytest.raises(Unreachable, match=r"clips-000000\.tar can't be read: .*503"):
        stamp(place)


def test_what_is_asked_for_while_indexing_is_asked_for_again(serve):
    server, url = serve()
    server.failures = 2
    faults = []
    assert [clip.key for clip in index_shards(f"{url}/clips-000000.tar", report=faults.append)] == ["k0", "k1"]
    assert not faults
    server.failures = 3
    with pytest.raises(Unreachable, match=r"clips-000000\.tar can't be read: .*503"):
        index_shards(f"{url}/clips-000000.tar", report=faults.append)
    assert not faults, "a server that fails is no damage of the shard"


def test_a_server_without_parts_is_said(serve):
    _, url = serve(Whole)
    with pytest.raises(DataError, match="range requests"):
        read_range(f"{url}/clips-000000.tar", 512, 100)


@pytest.mark.parametrize("place", ["{url}/none.tar", "http://127.0.0.1:1/none.tar", "nowhere://x/y.tar"])
def test_one_that_can_not_be_reached_is_an_error_and_no_fault(serve, tmp_path, place):
    _, url = serve()
    place = place.format(url=url)
    faults = []
    with pytest.raises(Unreachable, match=f"^{place} can't be read: .*[^: ]$"):
        index_shards([tmp_path / "shards", place], report=faults.append)
    assert not faults


def test_who_is_told_to_stop_meanwhile_stops(monkeypatch):
    def stop(_):
        asked.append(1)
        raise HyError("told to stop")

    asked = []
    monkeypatch.setattr("hy_data.places._system", stop)
    for ask in (stamp, lambda place: read_range(place, 0, 1)):
        with pytest.raises(HyError, match=r"^told to stop$"):
            ask("http://localhost/one.tar")
    assert len(asked) == 2


def test_one_of_this_machine_that_can_not_be_read_is_an_error_too(serve, tmp_path):
    folder = tmp_path / "shards"
    (folder / "clips-000002.tar").symlink_to("gone.tar")
    with pytest.raises(Unreachable, match=r"clips-000002\.tar can't be read: No such file"):
        index_shards(folder)
    (folder / "clips-000002.tar").unlink()
    (folder / "clips-000002.tar").mkdir()
    with pytest.raises(Unreachable, match=r"clips-000002\.tar can't be read: Is a directory"):
        index_shards(folder)


@pytest.mark.parametrize("after", [0, 5000])
def test_a_disk_that_fails_is_no_damage_of_the_shard(serve, tmp_path, monkeypatch, after):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() >= after:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size)

    path = tmp_path / "shards" / "clips-000000.tar"
    content = path.read_bytes()
    monkeypatch.setattr("pathlib.Path.open", lambda *_: Failing(content))
    with pytest.raises(Unreachable, match=r"clips-000000\.tar can't be read: Input/output error"):
        index_shard(path)


def test_places_of_this_machine(serve, tmp_path):
    folder = tmp_path / "shards"
    both = [str(folder / "clips-000000.tar"), str(folder / "clips-000001.tar")]
    assert (
        find_shards(folder)
        == find_shards([folder, both[1]])
        == find_shards(f"{folder}/clips-00000{{0..1}}.tar")
        == both
    )
    assert index_shards(f"file://{folder}/clips-000000.tar")[0].load().key == "k0"
    with pytest.raises(DataError, match=r"none holds no shards \(\*\.tar\)"):
        find_shards(tmp_path / "none")
    with pytest.raises(DataError, match="no shards are named"):
        find_shards([])
