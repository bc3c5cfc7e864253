"""What a site is checked for: each fault is one line that says what to do, and hides none of the others."""

from __future__ import annotations

import json
import os
import re
import shutil
import tomllib
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from clinic import CHECKS, healthy_coordinator, make_clinic, renew, set_setting

from fedrag.dp.accounting import Event, epsilon_of
from fedrag.dp.ledger import LEDGER_FILE, PrivacyLedger, entry_of
from fedrag.security.installed import RELEASE_FILE, installed_release
from fedrag.security.keys import fingerprint, load_public_key
from fedrag.site.admin.client_check import FLOWER, Finding, _clock, check_site
from fedrag.site.admin.reach import Health
from fedrag.weights.store import find_model

pytestmark = pytest.mark.usefixtures("own_home")


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    return make_clinic(tmp_path, days=30)


def checked(clinic: Path) -> dict[str, Finding]:
    """Check a site whose coordinator nobody has started, which is one of the findings."""
    return {finding.name: finding for finding in check_site(clinic)}


def faults(clinic: Path) -> dict[str, str]:
    """Return what is to be done beside starting the coordinator."""
    found = {name: finding.text for name, finding in checked(clinic).items() if not finding.is_ok}
    assert "refuses the connection" in found.pop("server")
    return found


def test_a_site_that_is_ready_is_told_so_line_by_line(clinic: Path):
    with healthy_coordinator(clinic) as port:
        found = checked(clinic)
    assert list(found) == CHECKS
    assert all(finding.is_ok for finding in found.values()), found
    assert all(finding.text and "\n" not in finding.text for finding in found.values())
    assert found["data"].text.startswith("8 passages, questions: 16 train, 4 validation, 6 test")
    assert (
        found["models"].text
        == "fedrag/tiny-causal, fedrag/tiny-encoder, fedrag/tiny-seq2seq: fetched, intact and tried"
    )
    assert found["certificate"].text == f"that of 127.0.0.1:{port} is valid for 29 days"
    assert re.fullmatch(r"[0-3] s away from the coordinator's", found["clock"].text)
    assert re.fullmatch(r"[\d,.]+ GB free, roughly 1.0 GB needed", found["memory"].text)
    assert re.fullmatch(r"python 3\.\d+\.\d+, fedrag \d+\.\d+\.\d+, flwr 1\.42\.\d+", found["versions"].text)


def test_where_the_coordinator_is_not_reached_its_certificate_and_clock_are_not_guessed(clinic: Path):
    assert list(checked(clinic)) == CHECKS[:-2]
    assert faults(clinic) == {}


def test_it_says_whether_the_coordinator_has_the_same_files_and_hinders_nothing(clinic: Path):
    here = installed_release()
    (clinic / RELEASE_FILE).write_text(f"{here}\n")
    assert checked(clinic)["release"].text == f"fedrag {here}, the same files as at the coordinator"
    (clinic / RELEASE_FILE).write_text("0.2.0 sha256:another\n")
    found = checked(clinic)["release"]
    assert found.text == (
        f"fedrag {here} is installed here, but 0.2.0 sha256:another at the coordinator: "
        "ask which of the two is the released one"
    )
    assert found.is_ok


def test_a_coordinator_s_key_that_was_replaced_is_found(clinic: Path):
    used = fingerprint(load_public_key(clinic / "coordinator.pub"))
    (clinic / "burnt-keys.json").write_text(json.dumps({used: "2026-03-02T10:00:00+00:00"}))
    assert "this key was replaced on 2026-03-02 and is never accepted again" in faults(clinic)["coordinator.pub"]


def test_a_folder_without_settings_is_no_site(tmp_path: Path):
    found = checked(tmp_path)
    assert list(found) == ["versions", "site.toml"]
    assert found["site.toml"].text.endswith("no such file; fedrag client init DIR makes a site's folder")


def test_questions_from_feedback_are_counted_apart(clinic: Path):
    with (clinic / "data" / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "f", "question": "Why?", "answers": ["so"], "origin": "feedback"}\n')
    told = "questions: 17 train, 4 validation, 6 test (27 questions: 26 from people, 1 from feedback)"
    assert told in checked(clinic)["data"].text


def test_a_site_with_passages_alone_is_told_that_it_trains_nothing(clinic: Path):
    for split in ("train", "validation", "test"):
        (clinic / "data" / f"{split}.jsonl").unlink()
    assert faults(clinic)["data"].startswith(
        f"{clinic / 'data'}: 8 passages and no question yet, so this site can be asked, but trains nothing; "
    )


def test_several_faults_are_all_told(clinic: Path, own_home: Path):
    (clinic / "site.key").chmod(0o644)
    (clinic / "coordinator.pub").unlink()
    (clinic / "ca.crt").write_text("nothing")
    with (clinic / "data" / "train.jsonl").open("a") as file:
        file.write("{\n{\n")
    shutil.rmtree(own_home / "models")
    found = {name: finding.text for name, finding in checked(clinic).items() if not finding.is_ok}
    assert found["private key"] == f"{clinic / 'site.key'}: others than its owner can read it; run: chmod 600 " + str(
        clinic / "site.key"
    )
    assert (
        found["coordinator.pub"] == f"{clinic / 'coordinator.pub'}: is missing; the coordinator gives it to every site"
    )
    assert found["ca.crt"] == f"{clinic / 'ca.crt'}: expected a certificate (PEM)"
    assert found["data"].startswith(f"{clinic / 'data' / 'train.jsonl'}:17: ")
    assert found["data"].endswith(f"; 1 more: fedrag data check {clinic / 'data'}")
    assert found["models"] == "no model is fetched; run: fedrag models fetch"
    assert set(found) == {"private key", "coordinator.pub", "ca.crt", "data", "models", "server"}


def test_a_site_with_fewer_questions_than_its_own_policy_asks_for_is_told(clinic: Path):
    set_setting(clinic, "min_examples", "20")
    assert faults(clinic)["data"].endswith(
        "16 training questions, so this site trains nothing: its policy asks for 20 (min_examples); "
        "they stand in train.jsonl"
    )
    set_setting(clinic, "min_examples", "1")
    (clinic / "data" / "train.jsonl").write_text("")
    assert "0 training questions, so this site trains nothing" in faults(clinic)["data"]


def test_missing_data_is_named(clinic: Path):
    shutil.rmtree(clinic / "data")
    assert faults(clinic)["data"].startswith(f"{clinic / 'data'}: no such folder")


def test_a_model_that_was_altered_is_named_and_so_is_every_other(clinic: Path, own_home: Path):
    for name in ("causal", "encoder"):
        path = own_home / "models" / f"fedrag--tiny-{name}" / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    told = faults(clinic)["models"]
    assert told.count("is not the model that was fetched") == 2
    assert "run: fedrag models fetch fedrag/tiny-encoder --force" in told


def test_a_model_whose_positions_hold_no_prompt_is_named_whatever_the_scenario(clinic: Path, own_home: Path):
    """The budget of a run stands in its scenario, which a site does not know: here all that the model can read."""
    file = own_home / "models" / "fedrag--tiny-causal" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": 64}))
    told = faults(clinic)["models"]
    assert "fedrag/tiny-causal: settings: " in told
    assert "rag.prompt_tokens = 32 cannot hold the instruction and its surroundings" in told


def test_of_the_models_those_that_the_policy_allows_are_checked(clinic: Path, own_home: Path):
    shutil.rmtree(own_home / "models" / "fedrag--tiny-seq2seq")
    digest = find_model("fedrag/tiny-causal").tensors_sha256
    for allowed, expected in (
        ({"fedrag/tiny-causal": digest}, None),
        ({"fedrag/tiny-causal": "0" * 64}, "was fetched with other tensors"),
        (
            {"fedrag/tiny-seq2seq": digest},
            "fedrag/tiny-seq2seq is not among the fetched models; run: fedrag models fetch",
        ),
    ):
        table = ", ".join(f'"{name}" = "{sha256}"' for name, sha256 in allowed.items())
        set_setting(clinic, "base_models", f"{{ {table} }}")
        assert expected is None or expected in faults(clinic)["models"]
        assert expected is not None or "models" not in faults(clinic)


def test_an_authority_that_soon_ends_is_told(clinic: Path, monkeypatch: pytest.MonkeyPatch):
    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=3645)

    monkeypatch.setattr("fedrag.site.admin.client_check.datetime", Later)
    assert faults(clinic)["ca.crt"].endswith(
        "ends in 4 days; the coordinator must make a new one and give it to every site"
    )


def test_a_certificate_that_soon_ends_is_told(clinic: Path):
    renew(clinic.parent / "server", days=10)
    with healthy_coordinator(clinic):
        finding = checked(clinic)["certificate"]
    assert not finding.is_ok
    assert finding.text.endswith("ends in 9 days; ask the coordinator to renew it: fedrag server rotate")


@pytest.mark.parametrize(
    ("ahead", "told"),
    [
        (0.4, "0 s away"),
        (60.0, "60 s away"),
        (-60.4, "60 s away"),
        (61.0, "this machine's is 61 s ahead of the coordinator's"),
        (-3_661.0, "this machine's is 3,661 s behind the coordinator's, and from 300 s on the site is not let in"),
        (None, "the coordinator told no time"),
    ],
)
def test_a_clock_that_is_wrong_by_more_than_a_minute_is_to_be_set(ahead: float | None, told: str):
    health = Health(datetime.now(UTC), ahead)
    if told.startswith("this machine's"):
        with pytest.raises(Exception, match=told):
            _clock(health)
    else:
        assert _clock(health).startswith(told)


def test_a_full_disk_and_a_missing_gpu_are_told(clinic: Path, monkeypatch: pytest.MonkeyPatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(
        "fedrag.site.admin.client_check.shutil.disk_usage", lambda path: usage(10**12, 10**12 - 10**8, 10**8)
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    set_setting(clinic, "device", '"cuda"')
    told = faults(clinic)
    assert told["disk"].startswith(f"{clinic}: 100.0 MB are free on its disk, roughly 1.0 GB are needed; free some")
    assert told["device"].startswith('device = "cuda", but torch finds no GPU')


def test_too_little_memory_is_told(clinic: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fedrag.site.admin.client_check.free_memory", lambda device: 0.5e9)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert faults(clinic)["memory"].startswith("500.0 MB are free in memory, roughly 1.0 GB are needed")
    monkeypatch.setattr("fedrag.site.admin.client_check.free_memory", lambda device: None)
    assert "memory" not in faults(clinic)


def test_a_check_that_breaks_is_one_line_and_the_others_go_on(clinic: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(config: object) -> str:
        raise ZeroDivisionError("a bug\nof two lines")

    monkeypatch.setattr("fedrag.site.admin.client_check._memory", broken)
    assert faults(clinic) == {"memory": "could not be checked: ZeroDivisionError: a bug of two lines"}


def test_another_flower_than_the_node_speaks_is_told(clinic: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fedrag.site.admin.client_check.version", lambda name: "1.43.0")
    assert faults(clinic)["versions"] == (
        "flwr 1.43.0 is installed, but 1.42 is needed; run: pip install 'flwr==1.42.*'"
    )
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    [pinned] = [line for line in project["dependencies"] if line.startswith("flwr")]
    assert f">={FLOWER}," in pinned


def test_a_check_writes_nothing(clinic: Path):
    before = {path: path.stat().st_mtime_ns for path in clinic.rglob("*")}
    checked(clinic)
    assert {path: path.stat().st_mtime_ns for path in clinic.rglob("*")} == before


def test_a_site_on_the_cpu_is_checked_for_the_cpu(clinic: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    set_setting(clinic, "device", '"cpu"')
    assert checked(clinic)["device"].text.startswith("cpu: ")


def test_it_says_what_noise_would_cost_here_and_what_is_spent(clinic: Path):
    text = checked(clinic)["privacy"].text
    assert re.match(r"at 16 training questions epsilon 8 means noise [\d.]+ times the signal; with 2,000 it", text)
    assert text.endswith("spent so far: epsilon 0.00, without a limit (max_epsilon)")
    PrivacyLedger(clinic / LEDGER_FILE).write([entry_of("run-1", 1, "generator", Event(4.0, 1.0, 4), 16)])
    set_setting(clinic, "max_epsilon", "4.0")
    text = checked(clinic)["privacy"].text
    spent = epsilon_of([Event(4.0, 1.0, 4)], 1 / 160)
    assert "epsilon 4 means noise" in text
    assert text.endswith(f"spent so far: epsilon {spent:.2f} of 4 (max_epsilon)")
    (clinic / LEDGER_FILE).write_text("{")
    assert "nobody knows how much of epsilon is spent" in faults(clinic)["privacy"]
