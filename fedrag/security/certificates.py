"""A federation's own certificate authority and the server certificates that it signs (EC P-256, X.509)."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedrag.errors import ConfigError
from fedrag.files import storage_errors, write_text
from fedrag.security.keys import create_secret, private_bytes, read_secret

ALWAYS_NAMED = ("localhost", "127.0.0.1")
"""The hosts that every server certificate names, for what connects on the machine itself."""

_CLOCK_SKEW = timedelta(hours=1)
"""A certificate is valid from this long before it was made: a site's clock may be slow."""

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}$)(?!(.*\.)?\d+$){_LABEL}(\.{_LABEL})*")  # 10.0.0.256 is no name either


def new_authority(cert: Path, key: Path, common_name: str, days: int) -> None:
    """Write a new certificate authority: its certificate, and its private key with mode 0600.

    Args:
        cert: The certificate that every site is handed (PEM).
        key: The private key (PEM); it signs the server certificates and stays where it is.
        common_name: The authority's name, 1 to 64 characters.
        days: How long the certificate is valid.

    Raises:
        ConfigError: A value is not valid, or there is an authority already: a new one would lock all sites out.
        StorageError: The disk is full or the folder cannot be written.
    """
    for path in (cert, key):
        if os.path.lexists(path):
            raise ConfigError(f"{path}: exists already; a certificate authority is never overwritten")
    own_key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name)
    builder = (
        _builder(name, name, own_key.public_key(), _not_after(days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    )
    _write_pair(cert, builder.sign(own_key, hashes.SHA256()), key, own_key)


def new_server_certificate(
    cert: Path, key: Path, authority_cert: Path, authority_key: Path, hosts: Sequence[str], days: int
) -> None:
    """Write a new server certificate and its private key with mode 0600; earlier files are replaced.

    Args:
        cert: The certificate (PEM).
        key: Its private key (PEM).
        authority_cert: The certificate of the authority that signs.
        authority_key: The authority's private key.
        hosts: DNS names and IP addresses of the server, without ports; `localhost` and `127.0.0.1` are always added.
        days: How long the certificate is valid, at most as long as the authority's.

    Raises:
        ConfigError: A value is not valid, or the authority's files are missing, expired or do not belong together.
        StorageError: The disk is full or the folder cannot be written.
    """
    authority, signing_key = _load_authority(authority_cert, authority_key)
    names = dict.fromkeys(_general_name(host) for host in [*hosts, *ALWAYS_NAMED])
    own_key = ec.generate_private_key(ec.SECP256R1())
    not_after = min(_not_after(days), authority.not_valid_after_utc)
    identifier = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    subject = _name([*hosts, *ALWAYS_NAMED][0][:64])
    builder = (
        _builder(subject, authority.subject, own_key.public_key(), not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    _write_pair(cert, builder.sign(signing_key, hashes.SHA256()), key, own_key)


def expires(cert: Path) -> datetime:
    """Return when a certificate expires, in UTC.

    Raises:
        ConfigError: The file is missing or holds no certificate.
    """
    return _load(cert).not_valid_after_utc


def days_left(cert: Path, now: datetime) -> int:
    """Return how many whole days a certificate is still valid; negative once it has expired.

    Args:
        cert: The certificate (PEM).
        now: The time, with its time zone.

    Raises:
        ConfigError: The file is missing or holds no certificate.
    """
    return (expires(cert) - now).days


def _load(cert: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(cert.read_bytes())
    except OSError as error:
        raise ConfigError(f"{cert}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{cert}: expected a certificate (PEM)") from None


def _load_authority(cert: Path, key: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    authority = _load(cert)
    try:
        signing_key = serialization.load_pem_private_key(read_secret(key), password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{key}: expected the authority's private key (PEM, without a passphrase)") from None
    if not isinstance(signing_key, ec.EllipticCurvePrivateKey) or signing_key.public_key() != authority.public_key():
        raise ConfigError(f"{key}: is not the private key of {cert}")
    if not _is_authority(authority):
        raise ConfigError(f"{cert}: is a server's certificate; expected a certificate authority's")
    if authority.not_valid_after_utc <= datetime.now(UTC):
        raise ConfigError(f"{cert}: the certificate authority expired on {authority.not_valid_after_utc:%Y-%m-%d}")
    return authority, signing_key


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, not_after: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - _CLOCK_SKEW)
        .not_valid_after(not_after)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(*allowed: str) -> x509.KeyUsage:
    usages = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{usage: usage in allowed for usage in usages})


def _name(common_name: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    except ValueError:
        raise ConfigError(f"{common_name!r}: a certificate's name must have 1 to 64 characters") from None


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _DNS_NAME.fullmatch(host.lower()):
        raise ConfigError(f"{host!r}: expected a host as server.example.org or 192.0.2.7, without a port")
    return x509.DNSName(host.lower())


def _not_after(days: int) -> datetime:
    if not 1 <= days <= 36_500:
        raise ConfigError(f"days = {days}: a certificate must be valid for 1 to 36500 days")
    return datetime.now(UTC) + timedelta(days=days)


def _write_pair(cert: Path, certificate: x509.Certificate, key: Path, own_key: ec.EllipticCurvePrivateKey) -> None:
    """Write a certificate and its key: both in full first, then each to its place."""
    ending = f".{secrets.token_hex(4)}.partial"
    new_cert, new_key = (path.with_name(f".{path.name}{ending}") for path in (cert, key))
    try:
        create_secret(new_key, private_bytes(own_key))
        write_text(new_cert, certificate.public_bytes(serialization.Encoding.PEM).decode())
        with storage_errors(key):
            os.replace(new_key, key)
        with storage_errors(cert):
            os.replace(new_cert, cert)
    finally:
        for partial in (new_key, new_cert):
            partial.unlink(missing_ok=True)
