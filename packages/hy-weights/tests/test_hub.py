"""Hub ids, through the real client, against a little hub on this machine that serves a folder of repositories."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants as hub_constants
import pytest
import torch
from hy_weights import CheckpointError, hub, located, located_folder, read_tensors
from safetensors.torch import save_file

COMMIT = "c0ffee" * 6 + "abcd"
REFUSED = {"org/missing": (404, "RepoNotFound"), "org/gated": (403, "GatedRepo"), "org/broken": (500, "")}


def answer(root, parts):
    """Status, body and headers of the little hub for a path; a repository is a folder `org/name` of `root`."""
    if parts[:2] == ["api", "models"]:
        return answer_api(root / parts[2] / parts[3], "/".join(parts[2:4]), parts[4:])
    if parts[0] == "api":
        return 404, b"{}", {}
    name = "/".join(parts[4:])
    return 200, root.joinpath(*parts[:2], name).read_bytes(), {"X-Repo-Commit": COMMIT, "ETag": f'"{hash(name)}"'}


def answer_api(folder, repository, rest):
    files = {file.relative_to(folder).as_posix(): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    if repository in REFUSED:
        status, code = REFUSED[repository]
        return status, b"{}", {"X-Error-Code": code}
    if set(rest) - {"tree", "revision", "main", "v1", "refs", "pr", "1", COMMIT}:
        return 404, b"{}", {"X-Error-Code": "RevisionNotFound"}
    if "tree" in rest:
        told = [{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in files.items()]
    else:
        told = {"id": repository, "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
    return 200, json.dumps(told).encode(), {"Content-Type": "application/json"}


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        status, body, headers = answer(self.server.root, parts)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            if parts[0] != "api":
                self.server.asked.append("/".join(parts[4:]))

    do_HEAD = do_GET


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub: `root` holds `org/name` folders, `asked` the paths of files that were downloaded."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.root, server.asked = tmp_path / "hub", []
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(hub_constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def repository(served):
    """Fill a repository; a dict is a file of weights, a text any other file."""

    def fill(name, files):
        for path, content in files.items():
            file = served.root / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                file.write_text(content)
            else:
                save_file(content, file)
        return f"hf://{name}"

    return fill


WEIGHTS = {"a": torch.arange(3.0), "b": torch.ones(2)}
PIPELINE = {
    "README.md": "words",
    "model_index.json": "{}",
    "text_encoder/model.safetensors": {"t": torch.ones(1)},
    "transformer/config.json": "{}",
    "transformer/diffusion_pytorch_model.safetensors": WEIGHTS,
    "transformer/diffusion_pytorch_model.fp16.safetensors": {"f": torch.ones(1)},
    "transformer/model.pkl": "a pickle",
    "vae/config.json": "{}",
    "vae/diffusion_pytorch_model.safetensors": {"v": torch.ones(1)},
}


def same(path):
    read = read_tensors(path)
    return read.keys() == WEIGHTS.keys() and all(torch.equal(read[key], value) for key, value in WEIGHTS.items())


def test_a_pipeline_gives_the_folder_that_was_asked_for_and_nothing_else_is_downloaded(served, repository):
    place = repository("org/pipeline", PIPELINE)
    folder = located(place, ["transformer", "dit"])
    assert same(folder)
    assert located(Path(place), ["transformer"]) == folder
    assert sorted(served.asked) == ["transformer/config.json", "transformer/diffusion_pytorch_model.safetensors"]
    served.asked.clear()
    assert located(f"{place}@refs/pr/1/vae", ["vae"]).name == "vae"
    assert located(f"{place}@v1/vae", ["vae"]).name == "vae"
    assert sorted(served.asked) == ["vae/config.json", "vae/diffusion_pytorch_model.safetensors"]


def test_what_was_downloaded_is_not_downloaded_again_and_serves_without_a_hub(served, repository, monkeypatch):
    place = repository("org/pipeline", PIPELINE)
    located(place, ["transformer"])
    served.asked.clear()
    assert same(located(place, ["transformer"]))
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    assert same(located(place, ["transformer"]))
    assert served.asked == []
    with pytest.raises(CheckpointError, match=r"^hf://org/other: the hub can't be reached, and its cache .* no copy$"):
        located("hf://org/other")


def test_an_unreachable_hub_is_as_good_as_none(served, repository, monkeypatch):
    place = repository("org/pipeline", PIPELINE)
    located(place, ["transformer"])
    monkeypatch.setattr(hub_constants, "ENDPOINT", "http://127.0.0.1:9")
    assert same(located(place, ["transformer"]))
    with pytest.raises(CheckpointError, match="the hub can't be reached, and its cache"):
        located("hf://org/other")


def test_one_file_of_several_must_be_named_and_comes_alone(served, repository):
    files = {"bf16.safetensors": WEIGHTS, "fp8.safetensors": {"x": torch.ones(1)}, "config.json": "{}"}
    place = repository("org/repackaged", files)
    with pytest.raises(CheckpointError, match=r"several checkpoints; name the one .*: bf16\.safetensors, fp8\.safet"):
        located(place, ["transformer"])
    assert same(located(f"{place}/bf16.safetensors", ["transformer"]))
    assert served.asked == ["bf16.safetensors"]


def test_an_fp8_file_comes_with_its_scales(served, repository):
    scales = {"layer": torch.ones(())}
    files = {"a_fp8.safetensors": WEIGHTS, "a_fp8_map.safetensors": scales, "b_fp8_map.safetensors": scales}
    place = repository("org/fp8", files)
    assert same(located(f"{place}/a_fp8.safetensors"))
    assert sorted(served.asked) == ["a_fp8.safetensors", "a_fp8_map.safetensors"]


def test_shards_come_with_their_index(served, repository):
    names = [f"diffusion_pytorch_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = "diffusion_pytorch_model.safetensors.index.json"
    places = json.dumps({"weight_map": {"a": names[0], "b": names[1]}})
    files = {index: places, names[0]: {"a": WEIGHTS["a"]}, names[1]: {"b": WEIGHTS["b"]}, "other.safetensors": WEIGHTS}
    files["diffusion_pytorch_model-00001-of-00002.pkl"] = "a pickle"
    place = repository("org/sharded", files)
    assert same(located(place))
    assert sorted(served.asked) == sorted([index, *names])
    assert same(located(f"{place}/{index}"))


def test_a_published_folder_comes_whole_but_without_what_is_neither_weights_nor_json(served, repository):
    files = {"manifest.json": "{}", "dit/model.safetensors": WEIGHTS, "dit/config.json": "{}", "dit/run.py": "evil"}
    place = repository("org/ours", files)
    assert same(located(place) / "dit")
    assert sorted(served.asked) == ["dit/config.json", "dit/model.safetensors", "manifest.json"]
    served.asked.clear()
    assert located(place, ["transformer", "dit"]).name == "dit"


TEXTS = PIPELINE | {
    "text_encoder/config.json": "{}",
    "text_encoder/pytorch_model.bin": "a pickle",
    "tokenizer/tokenizer.json": "{}",
    "tokenizer/spiece.model": "pieces",
    "tokenizer_2/merges.txt": "a b",
    "tokenizer_2/run.py": "evil",
}
SETTINGS = ["model_index.json", "text_encoder/config.json", "tokenizer/spiece.model", "tokenizer/tokenizer.json"]
SETTINGS += ["tokenizer_2/merges.txt", "transformer/config.json", "vae/config.json"]


def test_a_folder_comes_with_its_weights_and_the_settings_beside_it(served, repository):
    place = repository("org/texts", TEXTS)
    folder = located_folder(place, ["text_encoder", "text_encoder_2"])
    assert sorted(served.asked) == sorted([*SETTINGS, "text_encoder/model.safetensors"])
    assert (folder / "tokenizer" / "spiece.model").read_text() == "pieces"
    served.asked.clear()
    assert located_folder(f"{place}/vae", ["text_encoder"]) == folder / "vae"
    assert served.asked == ["vae/diffusion_pytorch_model.safetensors"], "the rest is there"


def test_a_folder_on_this_machine_stays_where_it_is(tmp_path):
    (tmp_path / "text_encoder").mkdir()
    assert located_folder(tmp_path, ["text_encoder"]) == tmp_path
    with pytest.raises(CheckpointError, match="no such file or folder"):
        located_folder(tmp_path / "nowhere")


def test_a_folder_that_a_repository_does_not_have_is_refused(repository):
    place = repository("org/texts", TEXTS)
    with pytest.raises(CheckpointError, match=r"the repository has no such folder or file; it has README\.md"):
        located_folder(f"{place}/unet")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("hf://org/missing", "no such repository on the hub, or a private one"),
        ("hf://org/gated", "access must be asked for on the repository's page"),
        ("hf://org/broken", r"the download failed \(.*500"),
        ("hf://org/pipeline@other", "no such branch, tag or commit"),
        ("hf://org/pipeline/unet", "no such folder or file; it has README.md, model_index.json, text_encoder, transf"),
        ("hf://org/pipeline/text_encoder/no.safetensors", "no such folder or file"),
        ("hf://org/pipeline", "holds neither .* name one of its folders: text_encoder, transformer, vae"),
        ("hf://org/pipeline/transformer/model.pkl", r"weights are in \.safetensors, .* nothing else is downloaded"),
        ("hf://org", r"a hub id is hf://org/name\[@revision\]\[/folder or file\]"),
        ("hf://org/pipeline/../../x", "leaves the repository"),
    ],
)
@pytest.mark.usefixtures("served")
def test_what_is_not_there_is_said_in_one_line(repository, place, message):
    repository("org/pipeline", PIPELINE)
    with pytest.raises(CheckpointError, match=message) as caught:
        located(place)
    assert str(caught.value).startswith(place)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("it broke\nhere"), OSError(28, "No space left on device"), KeyError()])
@pytest.mark.usefixtures("served")
def test_a_download_that_breaks_is_one_line(repository, monkeypatch, error):
    def fail(*_, **__):
        raise error

    place = repository("org/pipeline", PIPELINE)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(CheckpointError, match=r"^hf://org/pipeline: the download failed \([^\n]+\)$"):
        located(place, ["vae"])


def test_a_path_is_never_looked_up(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_huggingface_hub", lambda _: pytest.fail("asked the hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf:" / "org" / "name").mkdir(parents=True)
    for place in ("hf://org/name", tmp_path):
        assert located(place) == type(tmp_path)(place)
    with pytest.raises(CheckpointError, match=r"^org/name: no such file .*; if you mean .* write hf://org/name$"):
        located("org/name")
    with pytest.raises(CheckpointError, match=r"none: no such file or folder$"):
        located(tmp_path / "none")


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"hf://org/name: .* pip install 'hy-weights\[hub\]'"):
        located("hf://org/name")
