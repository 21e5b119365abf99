"""A folder's lock is one process's, and ends with it."""

import errno
import fcntl
import multiprocessing
import os
import signal

import pytest
from hyvideo_pretrain.folder_lock import FolderLock


@pytest.fixture
def connection():
    ours, theirs = multiprocessing.Pipe()
    yield ours, theirs
    ours.close()


def hold(folder, theirs):
    """Take the lock, start a worker that outlives this process, and wait to be killed."""
    taken = FolderLock().take(folder)
    worker = os.fork()
    if worker == 0:
        signal.pause()
        os._exit(0)
    theirs.send((taken, worker))
    signal.pause()


def test_it_is_free_when_its_process_is_killed_whatever_workers_outlive_it(tmp_path, connection):
    ours, theirs = connection
    process = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path, theirs))
    process.start()
    taken, worker = ours.recv()
    try:
        assert taken
        assert not FolderLock().take(tmp_path)
        process.kill()
        process.join()
        os.kill(worker, 0)  # it is there
        lock = FolderLock()
        assert lock.take(tmp_path)
        lock.release()
        lock.release()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_disk_without_locks_is_reported(tmp_path, monkeypatch, caplog):
    def lockf(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    assert FolderLock().take(tmp_path)
    assert "nothing keeps two runs apart here" in caplog.text


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path):
    with pytest.raises(OSError, match="gone"):
        FolderLock().take(tmp_path / "gone")
