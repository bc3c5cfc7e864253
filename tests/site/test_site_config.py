"""The site.toml: every setting is explained, every mistake is told with file and key."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from fedrag.config.validation_errors import sections_and_settings
from fedrag.errors import ConfigError
from fedrag.site.site_config import Policy, SiteConfig, quiet_minutes, site_toml

SMALLEST = 'name = "clinic"\nserver = "fedrag.example.org:8443"\ndata = "qa"\n'
HASH = "0123456789abcdef" * 4


@pytest.fixture
def read(tmp_path):
    """Return a function that reads a text as a site.toml."""

    def read(text):
        path = tmp_path / "site.toml"
        path.write_text(text, encoding="utf-8")
        return SiteConfig.from_file(path)

    return read


def test_a_new_site_toml_holds_every_setting_with_its_default(read, tmp_path):
    text = site_toml("clinic", "[2001:db8::1]:8443")
    written = {".".join(path) for path in leaves(tomllib.loads(text))}
    assert written == {name for name, section in sections_and_settings(SiteConfig) if section is None}
    assert read(text) == read('name = "clinic"\nserver = "[2001:db8::1]:8443"\ndata = "data"\n')


def leaves(tree, *path):
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, *path, key)
        else:
            yield (*path, key)


def test_a_new_site_toml_may_name_any_folder(read):
    folder = '/srv/"clinic"\\qa äöü'
    assert read(site_toml("clinic", "a:1", folder)).data == folder


def test_in_a_new_site_toml_one_comment_line_stands_over_every_setting():
    lines = site_toml("clinic", "a:1").splitlines()
    settings = [number for number, line in enumerate(lines) if " = " in line and not line.startswith("#")]
    assert len(settings) == len([1 for _, section in sections_and_settings(SiteConfig) if section is None])
    for number in settings:
        assert lines[number - 1].startswith("# ")
        assert lines[number - 1].endswith(".")
        assert lines[number - 2] == ""
        assert len(lines[number - 1]) <= 120


@pytest.mark.parametrize(
    ("name", "server", "message"),
    [
        ("The Clinic", "a:1", "name = 'The Clinic': must be small letters, digits and hyphens"),
        ("clinic", "https://a:1", "server = 'https://a:1': must be HOST:PORT"),
    ],
)
def test_no_site_toml_is_written_that_could_not_be_read(name, server, message):
    with pytest.raises(ConfigError, match=f"^site.toml: {message}"):
        site_toml(name, server)


def test_the_smallest_site_toml_has_the_documented_defaults(read):
    config = read(SMALLEST)
    assert (config.device, config.proxy) == ("", "")
    assert config.policy == Policy(
        components=("generator", "retriever"),
        schedules=("generator", "retriever", "joint", "alternate", "staged", "iterate"),
        base_models={},
        rounds_a_day=0,
        minutes_a_day=0,
        quiet_hours="",
        max_message_mb=500.0,
        max_update_norm=0.0,
        min_examples=1,
        min_examples_for_metrics=1,
        tell_counts=True,
        tell_policy=True,
    )


def test_paths_start_at_the_folder_of_the_file_wherever_the_command_runs(tmp_path, monkeypatch):
    (tmp_path / "clinic").mkdir()
    (tmp_path / "clinic" / "site.toml").write_text(SMALLEST + 'private_key = "/etc/site.key"\n')
    monkeypatch.chdir(tmp_path)
    config = SiteConfig.from_file("clinic/site.toml")
    monkeypatch.chdir("/")
    assert config.data == str(tmp_path / "clinic" / "qa")
    assert config.ca == str(tmp_path / "clinic" / "ca.crt")
    assert config.coordinator_key == str(tmp_path / "clinic" / "coordinator.pub")
    assert config.private_key == "/etc/site.key"


def test_a_policy_is_read_as_it_is_written(read):
    policy = read(
        f"""{SMALLEST}
[policy]
components = ["retriever"]
schedules = ["staged", "joint"]
base_models = {{ "some/model" = "{HASH}" }}
quiet_hours = "22:30-06:00"
max_message_mb = 20
tell_counts = false
"""
    ).policy
    assert policy.components == ("retriever",)
    assert policy.schedules == ("staged", "joint")
    assert policy.base_models == {"some/model": HASH}
    assert quiet_minutes(policy.quiet_hours) == (22 * 60 + 30, 6 * 60)
    assert policy.max_message_mb == 20.0
    assert policy.tell_counts is False


@pytest.mark.parametrize(
    "server", ["localhost:1", "10.0.0.7:8443", "[::1]:65535", "superlink_1:8443", "x:80", "a-b.example.org:443"]
)
def test_a_server_is_a_host_and_a_port(read, server):
    assert read(SMALLEST.replace("fedrag.example.org:8443", server)).server == server


@pytest.mark.parametrize("proxy", ["", "http://proxy.example.org:3128", "https://user:word@10.0.0.1:3128"])
def test_a_proxy_is_a_url_or_none(read, proxy):
    assert read(f'{SMALLEST}proxy = "{proxy}"').proxy == proxy


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('name = "Clinic 1"', "name = 'Clinic 1': must be small letters, digits and hyphens"),
        ('server = "host"', "server = 'host': must be HOST:PORT, for example \"fedrag.example.org:8443\""),
        ('server = "host:0"', "server = 'host:0': must be HOST:PORT"),
        ('server = "host:65536"', "server = 'host:65536': must be HOST:PORT"),
        ('server = "host:8443/x"', "server = 'host:8443/x': must be HOST:PORT"),
        ('server = "ho st:8443"', "server = 'ho st:8443': must be HOST:PORT"),
        ('server = "::1:8443"', "server = '::1:8443': must be HOST:PORT"),
        ('data = ""', "data = '': must be a path"),
        ("data = 1", "data = 1: must be a text"),
        ('device = "gpu"', "device = 'gpu': must be '', 'cpu' or 'cuda'"),
        ('proxy = "proxy.example.org:3128"', "must be empty or a URL"),
        ('proxy = "http://proxy:x"', "must be empty or a URL"),
        ('proxy = "http://"', "must be empty or a URL"),
        ('privatekey = "x"', "unknown key privatekey (nearest known: private_key)"),
        ("[policy]\nround_a_day = 1", "unknown key policy.round_a_day (nearest known: policy.rounds_a_day)"),
        ("rounds_a_day = 1", "unknown key rounds_a_day (nearest known: policy.rounds_a_day)"),
        ("policy = 1", "policy = 1: must be a section: [policy]"),
        ('[policy]\ncomponents = ["reader"]', "policy.components.0 = 'reader': must be 'generator' or 'retriever'"),
        ("[policy]\ncomponents = []", "policy.components = []: must be a list of at least one name"),
        ('[policy]\ncomponents = "generator"', "policy.components = 'generator': must be a list such as"),
        ("[policy]\nschedules = []", "must be a list of at least one name"),
        ('[policy]\nbase_models = ["a/b"]', "policy.base_models = ['a/b']: must be a table such as"),
        ('[policy.base_models]\n"a/b" = "0123"', "policy.base_models.a/b = '0123': must be 64 of the characters"),
        ("[policy]\nrounds_a_day = -1", "policy.rounds_a_day = -1: must be greater than or equal to 0"),
        ("[policy]\nrounds_a_day = true", "policy.rounds_a_day = True: must be a whole number"),
        ('[policy]\nrounds_a_day = "3"', "policy.rounds_a_day = '3': must be a whole number"),
        ('[policy]\nquiet_hours = "8-18"', "policy.quiet_hours = '8-18': must be empty or two different times of day"),
        ('[policy]\nquiet_hours = "08:00-24:00"', "must be empty or two different times of day"),
        ('[policy]\nquiet_hours = "08:00-08:00"', "must be empty or two different times of day"),
        ("[policy]\nmax_message_mb = 0", "policy.max_message_mb = 0: must be greater than 0"),
        ("[policy]\nmax_update_norm = nan", "policy.max_update_norm = nan: must be a finite number"),
        ("[policy]\nmin_examples = 0", "policy.min_examples = 0: must be greater than or equal to 1"),
        ('[policy]\ntell_counts = "no"', "policy.tell_counts = 'no': must be true or false"),
        ("[policy]\ntell_counts = 0", "policy.tell_counts = 0: must be true or false"),
        ("[policy]\ntell_policy = 1", "policy.tell_policy = 1: must be true or false"),
        ("[policy\n", "not valid TOML: "),
    ],
)
def test_a_mistake_is_told_with_file_and_key_in_one_line(read, tmp_path, lines, message):
    key = lines.partition(" = ")[0]
    rest = "".join(line for line in SMALLEST.splitlines(keepends=True) if not line.startswith(f"{key} = "))
    with pytest.raises(ConfigError) as caught:
        read(rest + lines)
    assert str(caught.value).startswith(f"{tmp_path / 'site.toml'}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["name", "server", "data"])
def test_what_has_no_default_must_be_there(read, key):
    text = "".join(line for line in SMALLEST.splitlines(keepends=True) if not line.startswith(key))
    with pytest.raises(ConfigError, match=rf"site\.toml: {key} is missing$"):
        read(text)


def test_a_file_that_cannot_be_read_is_told_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"site\.toml: no such file; fedrag client init DIR"):
        SiteConfig.from_file(tmp_path / "site.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        SiteConfig.from_file(tmp_path)
    (tmp_path / "site.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match=r"site\.toml: not UTF-8 text \(byte 9\)"):
        SiteConfig.from_file(tmp_path / "site.toml")


def test_the_mark_that_some_editors_put_before_a_text_does_no_harm(tmp_path):
    (tmp_path / "site.toml").write_text(SMALLEST, encoding="utf-8-sig")
    assert SiteConfig.from_file(tmp_path / "site.toml").name == "clinic"


def test_a_site_waits_for_work_without_a_model_library():
    """A site's service and the node that holds its key must stay small: the models are loaded by their worker alone."""
    script = (
        "import sys, fedrag.site.service.serve, fedrag.site.service.node; "
        "print([name for name in ('torch', 'transformers', 'ray', 'faiss') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
