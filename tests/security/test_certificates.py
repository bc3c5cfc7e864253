"""Certificates: a real TLS handshake takes them, one of another authority is refused, keys are private."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from fedrag.errors import ConfigError, FedragError, StorageError
from fedrag.security.certificates import days_left, expires, new_authority, new_server_certificate
from fedrag.security.keys import new_key


@dataclass(frozen=True)
class Files:
    """An authority and a server's certificate in one folder."""

    folder: Path

    @property
    def authority(self) -> tuple[Path, Path]:
        return self.folder / "ca.crt", self.folder / "ca.key"

    @property
    def server(self) -> tuple[Path, Path]:
        return self.folder / "server.crt", self.folder / "server.key"

    def renew(self, *hosts: str, days: int = 30) -> None:
        new_server_certificate(*self.server, *self.authority, hosts, days)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Files]:
    def make_files(
        name: str = "a", hosts: tuple[str, ...] = ("fed.example.org", "192.0.2.7"), days: int = 365
    ) -> Files:
        files = Files(tmp_path / name)
        new_authority(*files.authority, "fedrag test", days)
        files.renew(*hosts)
        return files

    return make_files


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def shake_hands(server: Files, trusted: Path, name: str) -> str:
    """Connect to a real TLS server under a name, as strictly as OpenSSL can; return what the client read."""
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    there.load_cert_chain(*server.server)
    here = ssl.create_default_context(cafile=trusted)
    here.verify_flags |= ssl.VERIFY_X509_STRICT
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        raw, _ = listener.accept()
        try:
            with there.wrap_socket(raw, server_side=True) as connection:
                connection.sendall(b"welcome")
        except OSError:  # the client went away
            raw.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        raw = socket.create_connection(listener.getsockname(), timeout=10)
        with closing(raw), here.wrap_socket(raw, server_hostname=name) as connection:
            return connection.recv(100).decode()
    finally:
        thread.join()
        listener.close()


@pytest.mark.parametrize("name", ["fed.example.org", "192.0.2.7", "localhost", "127.0.0.1"])
def test_a_client_that_trusts_the_authority_connects_under_every_name(name: str, make: Callable[..., Files]):
    files = make()
    assert shake_hands(files, files.authority[0], name) == "welcome"


@pytest.mark.parametrize("name", ["other.example.org", "192.0.2.8", "sub.fed.example.org"])
def test_a_client_refuses_a_name_that_the_certificate_does_not_carry(name: str, make: Callable[..., Files]):
    files = make()
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch|not valid for"):
        shake_hands(files, files.authority[0], name)


def test_a_client_refuses_the_certificate_of_another_authority(make: Callable[..., Files]):
    """Both authorities have the same name: it is the key that counts."""
    ours, theirs = make("ours"), make("theirs")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(theirs, ours.authority[0], "localhost")


def test_a_server_certificate_signs_no_others(make: Callable[..., Files], tmp_path: Path):
    with pytest.raises(ConfigError, match="server.crt: is a server's certificate"):
        new_server_certificate(tmp_path / "below.crt", tmp_path / "below.key", *make().server, ["localhost"], 30)
    assert not list(tmp_path.glob("below*"))


def test_the_authority_can_sign_servers_and_nothing_below(make: Callable[..., Files]):
    extensions = read(make().authority[0]).extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert basic.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usages(usage.value) == {"key_cert_sign", "crl_sign"}
    assert extensions.get_extension_for_class(x509.SubjectKeyIdentifier)


def test_a_server_certificate_is_for_servers_and_names_its_issuers_key(make: Callable[..., Files]):
    files = make()
    authority, server = (read(cert) for cert, _ in (files.authority, files.server))
    own = server.extensions
    assert server.issuer == authority.subject
    assert own.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert usages(own.get_extension_for_class(x509.KeyUsage).value) == {"digital_signature"}
    assert list(own.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert own.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == identifier
    for certificate in (authority, server):
        public_key = certificate.public_key()
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        assert isinstance(public_key.curve, ec.SECP256R1)


def usages(usage: x509.KeyUsage) -> set[str]:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    return {name for name in (*names, "key_cert_sign", "crl_sign") if getattr(usage, name)}


def test_names_and_addresses_are_kept_apart_and_none_comes_twice(make: Callable[..., Files]):
    certificate = read(make(hosts=("Fed.Example.org", "2001:db8::7", "localhost", "127.0.0.1")).server[0])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fed.example.org", "localhost"]
    addresses = [ipaddress.ip_address("2001:db8::7"), ipaddress.ip_address("127.0.0.1")]
    assert names.get_values_for_type(x509.IPAddress) == addresses


def test_a_server_without_any_name_is_known_on_its_own_machine(make: Callable[..., Files]):
    files = make(hosts=())
    assert shake_hands(files, files.authority[0], "localhost") == "welcome"


def test_a_certificate_is_valid_from_an_hour_ago_for_the_days_asked(make: Callable[..., Files]):
    before = datetime.now(UTC).replace(microsecond=0)
    files = make()
    after = datetime.now(UTC)
    server = read(files.server[0])
    assert before <= server.not_valid_before_utc + timedelta(hours=1) <= after
    assert before + timedelta(days=30) <= server.not_valid_after_utc <= after + timedelta(days=30)
    assert expires(files.server[0]) == server.not_valid_after_utc
    assert expires(files.server[0]).tzinfo is UTC


def test_days_left_are_whole_days_and_negative_after_the_end(make: Callable[..., Files]):
    cert = make().server[0]
    end = expires(cert)
    for before_end, left in (
        (timedelta(days=30), 30),
        (timedelta(days=29, hours=23), 29),
        (timedelta(hours=1), 0),
        (timedelta(0), 0),
        (timedelta(seconds=-1), -1),
        (timedelta(days=-7), -7),
    ):
        assert days_left(cert, end - before_end) == left
    elsewhere = (end - timedelta(days=2)).astimezone().replace(microsecond=0)
    assert days_left(cert, elsewhere) == 2


def test_no_server_certificate_outlives_its_authority(make: Callable[..., Files]):
    files = make(days=10)
    files.renew("fed.example.org", days=1000)
    assert expires(files.server[0]) == expires(files.authority[0])


def test_keys_are_private_and_certificates_are_not(make: Callable[..., Files]):
    before = os.umask(0)
    try:
        files = make()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in files.folder.iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "server.crt": 0o644, "server.key": 0o600}


def test_a_renewed_certificate_takes_the_place_of_the_old_with_a_new_key(make: Callable[..., Files]):
    files = make()
    old = [path.read_bytes() for path in files.server]
    files.renew("new.example.org")
    assert all(path.read_bytes() != content for path, content in zip(files.server, old, strict=True))
    assert shake_hands(files, files.authority[0], "new.example.org") == "welcome"


@pytest.mark.parametrize("there", ["ca.crt", "ca.key"])
def test_an_authority_is_never_overwritten(there: str, tmp_path: Path):
    (tmp_path / there).write_text("precious")
    with pytest.raises(ConfigError, match=f"{there}: exists already"):
        new_authority(tmp_path / "ca.crt", tmp_path / "ca.key", "another", 10)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(there, "precious")]


@pytest.mark.parametrize(
    "host",
    ["https://fed.example.org", "fed.example.org:8443", "[::1]", "a b", "", "-a", "10.0.0.256", "fé.org", "a..b"],
)
def test_what_is_no_host_is_refused_and_the_old_certificate_stays(host: str, make: Callable[..., Files]):
    files = make()
    old = {path.name: path.read_bytes() for path in files.folder.iterdir()}
    with pytest.raises(ConfigError, match="without a port"):
        files.renew("fine.example.org", host)
    assert {path.name: path.read_bytes() for path in files.folder.iterdir()} == old


@pytest.mark.parametrize(("name", "days"), [("", 10), ("x" * 65, 10), ("x", 0), ("x", -1), ("x", 10**9)])
def test_an_authority_needs_a_name_and_a_time(name: str, days: int, tmp_path: Path):
    with pytest.raises(ConfigError, match="1 to"):
        new_authority(tmp_path / "ca.crt", tmp_path / "ca.key", name, days)
    assert not list(tmp_path.iterdir())


def test_every_fault_of_an_authoritys_files_is_named(make: Callable[..., Files], tmp_path: Path):
    files, other = make(), make("other")
    cert, key = files.authority
    (tmp_path / "garbage").write_text("nothing")
    (tmp_path / "garbage").chmod(0o600)
    new_key(tmp_path / "p384.key")
    faults: list[tuple[Path, Path, str]] = [
        (tmp_path / "missing", key, "missing: cannot be read: No such file"),
        (cert, tmp_path / "missing", "missing: cannot be read: No such file"),
        (tmp_path / "garbage", key, r"garbage: expected a certificate \(PEM\)"),
        (cert, tmp_path / "garbage", "garbage: expected the authority's private key"),
        (cert, other.authority[1], "ca.key: is not the private key of .*ca.crt"),
        (cert, tmp_path / "p384.key", "p384.key: is not the private key of"),
    ]
    for authority, signing_key, fault in faults:
        with pytest.raises(ConfigError, match=fault):
            new_server_certificate(*files.server, authority, signing_key, ["a.org"], 30)
    key.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600 .*ca.key"):
        files.renew()


def test_an_authority_that_has_ended_signs_no_more(make: Callable[..., Files], monkeypatch: pytest.MonkeyPatch):
    files = make(days=10)

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=11)

    monkeypatch.setattr("fedrag.security.certificates.datetime", Later)
    with pytest.raises(ConfigError, match=r"ca.crt: the certificate authority expired on \d{4}-\d\d-\d\d$"):
        files.renew()


def test_a_certificate_that_cannot_be_written_leaves_nothing_half_done(make: Callable[..., Files], tmp_path: Path):
    """A folder stands where the certificate should go, and then where the key should."""
    files = make()
    for blocked in files.server:
        target = Files(tmp_path / f"blocked-{blocked.name}")
        (target.folder / blocked.name / "in the way").mkdir(parents=True)
        with pytest.raises(StorageError, match="cannot be written"):
            new_server_certificate(*target.server, *files.authority, ["a.org"], 30)
        assert not [path for path in target.folder.iterdir() if path.name.startswith(".")]


def test_all_refusals_end_with_exit_code_2(tmp_path: Path):
    with pytest.raises(FedragError) as refused:
        expires(tmp_path / "missing.crt")
    assert refused.value.exit_code == 2
