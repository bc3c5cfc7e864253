"""The coordinator's folder: what is made, who is entered, which run is on, and its backup."""

from __future__ import annotations

import sqlite3
import stat
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tiny_federation import tiny_config

from fedrag.coordinator.backup import back_up, restore
from fedrag.coordinator.jobs import begin_run, resume_run, run_names, stop_run
from fedrag.coordinator.outcome import Outcome, read_outcome, sites_without_result, write_outcome
from fedrag.coordinator.overview import overview
from fedrag.coordinator.server_folder import ServerConfig, ServerFolder
from fedrag.errors import ConfigError, ServiceError, StorageError
from fedrag.files import read_json, write_json
from fedrag.runs.run_folder import RunFolder
from fedrag.security.keys import fingerprint, load_private_key, load_public_key, new_key

CONFIG = ServerConfig(name="rag.example.org", port=18443, superlink_port=18444)


@pytest.fixture
def folder(tmp_path) -> ServerFolder:
    return ServerFolder.create(tmp_path / "coordinator", CONFIG)


@pytest.fixture
def keys(tmp_path) -> list[Path]:
    for number in range(3):
        new_key(tmp_path / f"{number}.key")
    return [tmp_path / f"{number}.pub" for number in range(3)]


@pytest.fixture
def served(folder):
    """The folder while a process serves it."""
    with folder.lock():
        yield folder


def test_only_its_owner_reads_a_new_folder(folder):
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder.path, *folder.path.rglob("*")]}
    secret = {"ca.key", "server.key", "signing.key", "executor.secret", ".audit.jsonl.lock"}
    assert secret <= {path.name for path in modes}
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items())


def test_what_sites_get_holds_no_private_key(folder):
    assert sorted(path.name for path in folder.for_sites.iterdir()) == ["ca.crt", "coordinator.pub", "release.txt"]
    assert all("PRIVATE" not in path.read_text() for path in folder.for_sites.iterdir())
    signing = load_private_key(folder.path / "signing.key").public_key()
    assert fingerprint(load_public_key(folder.for_sites / "coordinator.pub")) == fingerprint(signing)


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        ServerFolder.create(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_a_folder_that_is_none_is_refused_with_what_makes_one(tmp_path):
    with pytest.raises(ConfigError, match="fedrag server init makes one"):
        ServerFolder.open(tmp_path)


def test_an_unknown_key_of_its_settings_is_refused_by_name(folder):
    with (folder.path / "server.toml").open("a") as file:
        file.write("prot = 1\n")
    with pytest.raises(ConfigError, match='server.toml.*prot.*"port"|server.toml.*prot.*port'):
        ServerFolder.open(folder.path)


def test_a_site_is_entered_once_by_name_and_once_by_key(folder, keys):
    folder.register.add_site("north", keys[0])
    with pytest.raises(ConfigError, match="north: is registered already, with the key SHA256:"):
        folder.register.add_site("north", keys[1])
    with pytest.raises(ConfigError, match="this key is registered already, as north"):
        folder.register.add_site("south", keys[0])
    folder.register.add_site("south", keys[1])
    assert [site.name for site in folder.register.sites()] == ["north", "south"]


def test_a_removed_key_is_burnt_and_its_name_is_free(folder, keys):
    folder.register.add_site("north", keys[0])
    folder.register.remove_site("north")
    with pytest.raises(ConfigError, match="is never accepted again"):
        folder.register.add_site("south", keys[0])
    folder.register.add_site("north", keys[1])
    assert [site.name for site in folder.register.sites()] == ["north"]
    assert len(folder.register.sites(removed=True)) == 2


def test_removing_nobody_says_who_there_is(folder, keys):
    folder.register.add_site("north", keys[0])
    with pytest.raises(ConfigError, match="nort: no site has this name; registered: north"):
        folder.register.remove_site("nort")


@pytest.mark.parametrize("name", ["North", "a b", "", "-a", "a" * 65, "../a"])
def test_a_name_that_is_none_is_refused(folder, keys, name):
    with pytest.raises(ConfigError, match="is not a name for a site"):
        folder.register.add_site(name, keys[0])
    assert folder.register.sites() == []


def test_two_processes_cannot_serve_one_folder(served):
    with pytest.raises(ServiceError, match="is running in this folder already"), served.lock():
        pass


def test_a_run_needs_the_service(folder, tiny_home):
    with pytest.raises(ServiceError, match="start it with: fedrag server start"):
        begin_run(folder, tiny_config())
    assert run_names(folder) == []


def test_one_run_at_a_time(served, tiny_home):
    first = begin_run(served, tiny_config())
    with pytest.raises(ServiceError, match=f"{first} is running"):
        begin_run(served, tiny_config())
    assert run_names(served) == [first], "nothing is left of the second"
    with pytest.raises(ServiceError, match=f"{first} is running"):
        served.begin("other")


def test_a_run_that_is_on_may_be_resumed_and_goes_on(served, tiny_home):
    name = begin_run(served, tiny_config())
    resume_run(served, name)
    assert served.current()["run"] == name


def test_a_run_that_is_being_stopped_is_not_resumed_yet(served, tiny_home):
    name = begin_run(served, tiny_config())
    stop_run(served)
    with pytest.raises(ServiceError, match=f"{name} is being stopped"):
        resume_run(served, name)


def test_a_finished_run_is_not_resumed_and_an_unknown_one_is_named(served, tiny_home):
    name = begin_run(served, tiny_config())
    write_outcome(served.runs / name, Outcome("finished"))
    served.end()
    with pytest.raises(ConfigError, match="is finished"):
        resume_run(served, name)
    with pytest.raises(ConfigError, match=f"there is no such run; there are: {name}"):
        resume_run(served, "tiny-9")


def test_a_run_is_stopped_also_where_nothing_serves_it(folder, tiny_home):
    with folder.lock():
        name = begin_run(folder, tiny_config())
    assert stop_run(folder) == name
    assert read_outcome(folder.runs / name).state == "stopped"
    with pytest.raises(ServiceError, match="no run is in progress"):
        stop_run(folder)


def test_the_overview_holds_out_while_the_superlink_is_away_and_a_run_is_unreadable(served, keys, tiny_home):
    served.register.add_site("north", keys[0])
    name = begin_run(served, tiny_config())
    (served.runs / name / "scenario.toml").write_text("name = ")
    found = overview(ServerFolder.open(served.path))
    assert [(site["name"], site["state"]) for site in found["sites"]] == [("north", "unknown")]
    assert found["runs"][0]["state"] == "unknown"
    assert found["certificate_days"] >= 363


def test_sites_that_were_registered_and_did_not_get_the_result_miss_it(served, keys, tiny_home):
    served.register.add_site("north", keys[0])
    served.register.add_site("south", keys[1])
    name = begin_run(served, tiny_config())
    run = RunFolder.open(served.runs / name)
    write_outcome(run.path, Outcome("finished"))
    run.record_delivery(["south"])
    assert sites_without_result(served, run) == ["north"]
    run.record_delivery([*run.delivered_to, "north"])
    assert sites_without_result(served, run) == []


def test_a_backup_holds_everything_that_is_needed_and_only_its_owner_reads_it(folder, keys, tmp_path):
    folder.register.add_site("north", keys[0])
    with sqlite3.connect(folder.path / "superlink.db") as database:
        database.execute("CREATE TABLE node (name TEXT)")
        database.execute("INSERT INTO node VALUES ('north')")
    run = RunFolder.create(tiny_config(), root=folder.runs)
    run.save_result({"generator": {"a": np.ones(2, np.float32)}})
    (folder.logs).mkdir()
    (folder.logs / "superlink.log").write_text("long")
    file = tmp_path / "backup.tar.gz"
    back_up(folder, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    again = restore(file, tmp_path / "again")
    assert [site.name for site in again.register.sites()] == ["north"]
    assert fingerprint(load_private_key(again.path / "signing.key").public_key()) == folder.signing_fingerprint
    with sqlite3.connect(again.path / "superlink.db") as database:
        assert database.execute("SELECT name FROM node").fetchall() == [("north",)]
    np.testing.assert_array_equal(RunFolder.open(again.runs / run.path.name).load_result()["generator"]["a"], [1, 1])
    assert not (again.path / "logs").exists()
    assert stat.S_IMODE(again.path.stat().st_mode) == 0o700


def test_a_backup_overwrites_nothing_and_is_restored_over_nothing(folder, tmp_path):
    file = tmp_path / "backup.tar.gz"
    back_up(folder, file)
    with pytest.raises(ConfigError, match="overwrites nothing"):
        back_up(folder, file)
    with pytest.raises(ConfigError, match="into a new folder"):
        restore(file, folder.path)


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_what_is_no_backup_is_refused_and_leaves_nothing(tmp_path, content):
    file = tmp_path / "backup.tar.gz"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises((ConfigError, StorageError), match="backup") as refused:
        restore(file, tmp_path / "again")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "again").exists()


def test_an_archive_of_something_else_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a.txt", "a.txt")
    with pytest.raises(ConfigError, match="server.toml"):
        restore(tmp_path / "other.tar.gz", tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.fixture
def _no_filters(monkeypatch: pytest.MonkeyPatch):
    """Let tarfile extract as Python 3.11.3 does, which has no filters; 3.12 warns without one, 3.14 has a default."""
    as_it_stands = getattr(tarfile, "fully_trusted_filter", None)
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    monkeypatch.setattr(tarfile.TarFile, "extraction_filter", staticmethod(as_it_stands), raising=False)


@pytest.mark.usefixtures("_no_filters")
@pytest.mark.parametrize("kind", ["upwards", "absolute", "link"])
def test_an_archive_that_leads_out_of_its_folder_is_refused_without_filters_too(kind, tmp_path):
    entry = tarfile.TarInfo({"upwards": "../out", "absolute": f"{tmp_path}/out", "link": "link"}[kind])
    if kind == "link":
        entry.type, entry.linkname = tarfile.SYMTYPE, str(tmp_path / "out")
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as archive:
        archive.addfile(entry)
    with pytest.raises(ConfigError, match="does not belong in one"):
        restore(tmp_path / "other.tar.gz", tmp_path / "again")
    assert not (tmp_path / "again").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("filters", [True, False])
def test_a_backup_with_links_is_restored_by_every_python(folder, filters, tmp_path, request):
    if not filters:
        request.getfixturevalue("_no_filters")
    (folder.path / "linked.toml").hardlink_to(folder.path / "server.toml")
    (folder.path / "named.toml").symlink_to("server.toml")
    back_up(folder, tmp_path / "backup.tar.gz")
    again = restore(tmp_path / "backup.tar.gz", tmp_path / "again")
    assert again.config == folder.config
    for name in ("linked.toml", "named.toml"):
        assert (again.path / name).read_bytes() == (folder.path / "server.toml").read_bytes()


def test_the_questions_of_a_site_are_confirmed_when_it_is_entered_and_may_be_changed(folder, keys):
    folder.register.add_site("north", keys[0], 1200)
    folder.register.add_site("south", keys[1])
    assert [site.questions for site in ServerFolder.open(folder.path).register.sites()] == [1200, 0]
    folder.register.add_site("south", keys[1], 30)
    with pytest.raises(ConfigError, match="this key is registered already, as north"):
        folder.register.add_site("south", keys[0], 30)
    assert [(site.name, site.questions) for site in folder.register.sites()] == [("north", 1200), ("south", 30)]


def test_a_register_that_an_earlier_version_wrote_is_read(folder, keys):
    folder.register.add_site("north", keys[0])
    path = folder.path / "sites.json"
    [entry] = read_json(path)["sites"]
    write_json(path, {"sites": [{key: value for key, value in entry.items() if key != "questions"}]})
    assert [site.questions for site in folder.register.sites()] == [0]
