import pytest
import torch
from hy_vae3d import Tiling, VAE3DConfig, fitting
from hy_vae3d.fitting import KERNELS, VAEMemoryError, fitting_tiling, free_memory
from hy_vae3d.footprint import footprint

SMALL = VAE3DConfig(latent_channels=4, channels=(8, 8, 8, 8), layers_per_block=1, norm_groups=4)
SHAPE = (33, 640, 512)


def needed(half, tiling, dtype=torch.float32):
    return KERNELS * footprint(SMALL, half, SHAPE, tiling=tiling, dtype=dtype).total


@pytest.fixture
def free(monkeypatch):
    """Sets how much memory there is."""
    return lambda size: monkeypatch.setattr(fitting, "free_memory", lambda device: size)


def test_tiles_are_taken_where_the_whole_does_not_fit(free):
    whole = max(needed("encode", None), needed("decode", None))
    free(int(whole) + 1)
    assert fitting_tiling(SMALL, SHAPE) is None
    assert fitting_tiling(SMALL, SHAPE, "on") == Tiling()
    free(int(whole) - 1)
    assert fitting_tiling(SMALL, SHAPE) == Tiling()
    assert fitting_tiling(SMALL, SHAPE, dtype=torch.bfloat16) is None


def test_only_what_will_be_done_counts(free):
    less, more = sorted(("encode", "decode"), key=lambda half: needed(half, None))
    free(int(needed(less, None)) + 1)
    assert needed(less, None) + 1 < needed(more, None)
    assert fitting_tiling(SMALL, SHAPE, halves=(less,)) is None
    assert fitting_tiling(SMALL, SHAPE, halves=(more,)) == Tiling()


def test_what_does_not_fit_is_said_with_what_would(free):
    free(400 * 10**6)
    with pytest.raises(VAEMemoryError) as caught:
        fitting_tiling(SMALL, SHAPE)
    both = [max(needed(half, tiling) for half in ("encode", "decode")) / 1e9 for tiling in (None, Tiling())]
    text = str(caught.value)
    assert (
        f"about {both[0]:.1f} GB at once or about {both[1]:.1f} GB in tiles for 33 frames of 512x640 in float32" in text
    )
    assert "0.4 GB are free on cpu; take fewer or smaller frames" in text
    assert caught.value.exit_code == 2
    with pytest.raises(VAEMemoryError, match=r"at once for 33 .*; turn tiling on, take fewer"):
        fitting_tiling(SMALL, SHAPE, "off")


def test_what_one_tensor_exceeds_is_not_measured(free, monkeypatch):
    one = 4 * 8 * 33 * 640 * 512
    free(one - 1)
    monkeypatch.setattr(fitting, "footprint", lambda *_, **__: pytest.fail("it was measured"))
    with pytest.raises(VAEMemoryError, match=r"needs more than 0.3 GB at once for 33"):
        fitting_tiling(SMALL, SHAPE, "off")


def test_sizes_are_those_after_padding(free):
    free(10**6)
    with pytest.raises(VAEMemoryError, match="13 frames of 264x304"):
        fitting_tiling(SMALL, (10, 300, 257))


@pytest.mark.parametrize(("wanted", "tiling"), [("auto", None), ("on", Tiling()), ("off", None)])
def test_small_clips_and_silent_systems_are_not_measured(free, monkeypatch, wanted, tiling):
    monkeypatch.setattr(fitting, "footprint", lambda *_, **__: pytest.fail("it was measured"))
    free(0)
    assert fitting_tiling(SMALL, (17, 64, 64), wanted) == tiling
    free(None)
    assert fitting_tiling(SMALL, SHAPE, wanted) == tiling


def machine(folder, monkeypatch, **files):
    """A machine that tells of its memory in files, by their path with __ for a slash."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(fitting, "Path", lambda place: folder / place.lstrip("/"))
    monkeypatch.setattr(fitting, "_CGROUPS", folder / "sys/fs/cgroup")


MEMINFO = "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n"


def test_free_memory_is_what_is_available(tmp_path, monkeypatch):
    machine(tmp_path, monkeypatch, proc__meminfo=MEMINFO, proc__self__cgroup="0::/\n")
    assert free_memory() == 8000000 * 1024


def test_or_what_the_control_groups_leave(tmp_path, monkeypatch):
    machine(tmp_path, monkeypatch, proc__meminfo=MEMINFO, proc__self__cgroup="0::/outer/inner\n")
    group = tmp_path / "sys/fs/cgroup/outer"
    (group / "inner").mkdir(parents=True)
    for folder, limit in ((group, "5000"), (group / "inner", "max\n")):
        (folder / "memory.max").write_text(limit)
        (folder / "memory.current").write_text("3000\n")
    assert free_memory() == 2000
    (group / "memory.stat").write_text("anon 10\ninactive_file 700\n")
    assert free_memory() == 2700
    (group / "memory.max").write_text("100")
    assert free_memory() == 0


def test_of_the_first_version_too(tmp_path, monkeypatch):
    groups = "5:cpu:/\n4:memory:/job\n0::/\n"
    machine(tmp_path, monkeypatch, proc__meminfo=MEMINFO, proc__self__cgroup=groups)
    group = tmp_path / "sys/fs/cgroup/memory/job"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text("9000")
    (group / "memory.usage_in_bytes").write_text("4000")
    (group / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 500\n")
    assert free_memory() == 5500


def test_a_system_that_does_not_tell(tmp_path, monkeypatch):
    machine(tmp_path, monkeypatch)
    assert free_memory() is None


def test_this_machine_tells_something():
    found = free_memory()
    assert found is None or 10**8 < found < 10**14


def test_a_gpu_also_has_what_its_allocator_keeps(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 70)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 50)
    assert free_memory("cuda") == 1020
