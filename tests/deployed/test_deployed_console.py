"""A real coordinator and real sites: what the console starts, stops and resumes, and what a dry run had foreseen."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from console_asking import ask, done
from deployment import Deployment
from fedrag_process import await_moment, started
from ports import free_port
from tiny_federation import tiny_config, write_small_sites

from fedrag.config.scenario import Config
from fedrag.coordinator.console_token import TOKEN_FILE, read_token
from fedrag.coordinator.dry_run import dry_run
from fedrag.coordinator.server_folder import ServerFolder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_home")]

HEADER = 128  # numpy's, one an array


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_sites(tmp_path_factory.mktemp("data"), north=6, strict=6, sparse=2)


@pytest.fixture(scope="module")
def deployment(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    sites = {name: data / name for name in ("north", "strict", "sparse")}
    deployment = Deployment(tmp_path_factory.mktemp("deployed"), sites)
    deployment.set_setting("strict", "components", ["retriever"])
    deployment.set_setting("sparse", "min_examples", 3)
    with deployment:
        yield deployment


@pytest.fixture(scope="module")
def config(data: Path) -> Config:
    settings = {"rounds": 2, "min_sites": 3, "quorum": 0.3, "greeting_timeout_s": 180.0, "deadline_s": 120.0}
    return tiny_config(data, federation=settings)


@contextmanager
def console(folder: ServerFolder) -> Iterator[str]:
    """Run the console and give its address."""
    port = free_port()
    with started("server", "console", folder.path, "--port", str(port)) as process:
        await_moment(process, lambda: answers(f"http://127.0.0.1:{port}/icon.svg"), every_s=0.3)
        yield f"http://127.0.0.1:{port}"


def answers(address: str) -> bool:
    try:
        return httpx.get(address).is_success
    except httpx.HTTPError:
        return False


def test_what_a_dry_run_foresees_is_what_happens(deployment: Deployment, config: Config):
    folder = deployment.server
    first = dry_run(folder, config)
    assert {(site.site, site.state, site.answer) for site in first.sites} == {
        (name, "online", "not known") for name in ("north", "sparse", "strict")
    }
    assert (first.able, first.hindrances) == (3, ())
    scenario = folder.scenarios / "tiny.toml"
    scenario.write_text(config.to_toml())
    with console(folder) as address:
        name = done(address, folder, "start", scenario="tiny.toml").removesuffix(" starts")
        hindered = dry_run(folder, config).hindrances
        assert hindered == (f"{name} is running; wait for it, or stop it with: fedrag server stop {folder.path}",)
        deployment.wait_for_round(name, 1)
        assert done(address, folder, "stop", run=name) == f"{name} stops"
        deployment.wait(lambda: deployment.outcome(name).state == "stopped", 60, "the run to stop")
        assert done(address, folder, "resume", run=name) == f"{name} resumes"
        run = deployment.wait_until_done(name)
    second = dry_run(folder, config)
    assert {site.site: site.answer for site in second.sites} == {
        "north": "takes part",
        "sparse": "refuses",
        "strict": "refuses",
    }
    says = {site.site: " ".join(site.says) for site in second.sites}
    for line in run.rounds():
        assert list(line["sites"]) == ["north"]
        assert set(line["left_out"]) == {"sparse", "strict"}
        assert "(policy-few-examples" in line["left_out"]["sparse"]
        assert "(policy-component" in line["left_out"]["strict"]
    assert "(policy-few-examples)" in says["sparse"]
    assert "(policy-component)" in says["strict"]
    assert [line["bytes_to_each_site"] for line in run.rounds()] == [b + 2 * HEADER for b in second.traffic.to_site]
    assert [line["sites"]["north"]["bytes"] for line in run.rounds()] == [b + 2 * HEADER for b in second.traffic.back]
    assert second.pace is not None
    assert second.pace.run == name


def test_a_site_that_is_removed_in_the_console_is_offline_at_once_and_one_that_is_added_is_known(
    deployment: Deployment, data: Path
):
    folder = deployment.server
    key = deployment.make_site("east", data / "north") / "site.pub"
    with console(folder) as address:
        assert done(address, folder, "add-site", name="east", key=key.read_text()).startswith("east is registered")
        deployment.start_site("east")
        deployment.wait_until_online(deployment.site_names)
        assert done(address, folder, "remove-site", site="east").startswith("east is removed")
        assert "east" not in [node.name for node in folder.link.nodes() if node.online]
        answer = ask(address, folder, "add-site", name="east", key=key.read_text())
        again = ask(address, folder, "add-site", name="east", key=key.read_text(), confirm=answer.json()["confirm"])
    assert (again.status_code, "is never accepted again" in again.text) == (400, True)


def test_a_start_of_the_coordinator_makes_a_new_token(deployment: Deployment):
    folder = deployment.server
    before = read_token(folder)
    assert stat.S_IMODE((folder.path / TOKEN_FILE).stat().st_mode) == 0o600
    deployment.end("server")
    deployment.start_server()
    assert read_token(folder) != before
    said = "".join(path.read_text(errors="replace") for path in deployment.root.rglob("*.log"))
    assert before not in said
    assert read_token(folder) not in said
