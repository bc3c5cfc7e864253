"""A site's agreement key, from which it derives the masks of a secure sum with each other site.

It lies beside the private key, and stays the same when that is replaced. `site.pub` tells its public half, signed.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from fedrag.errors import ConfigError
from fedrag.files import read_text_file, write_text
from fedrag.secure_sum.agreement import KEY_BYTES, agreement_public, new_agreement_key
from fedrag.secure_sum.member_text import member_text
from fedrag.secure_sum.roster import Member, signed_member
from fedrag.security.keys import create_secret, load_private_key, public_key_text, read_secret
from fedrag.site.site_config import SiteConfig

AGREEMENT_FILE = "agreement.key"


def agreement_file(config: SiteConfig) -> Path:
    """Return where the agreement key lies: 64 hexadecimal digits, mode 0600."""
    return Path(config.private_key).with_name(AGREEMENT_FILE)


def provide_agreement_key(config: SiteConfig) -> None:
    """Make the agreement key of a site that has none, and tell it in its `site.pub`.

    Raises:
        ConfigError: The key is there and is none, or others can read it.
        StorageError: It cannot be written.
    """
    file, public = agreement_file(config), Path(config.private_key).with_suffix(".pub")
    if not file.is_file():
        create_secret(file, new_agreement_key().hex().encode())
    key = load_private_key(Path(config.private_key))
    told = read_text_file(public, ConfigError).split() if public.is_file() else []
    if len(told) < 3 or not told[2].startswith(member_text(Member(config.name, own_public(config)))):
        write_text(public, public_line(config, key))


def own_public(config: SiteConfig) -> bytes:
    """Return the public half of the agreement key.

    Raises:
        ConfigError: It is missing, others can read it, or it is none.
    """
    return agreement_public(read_agreement_key(agreement_file(config)))


def own_member(config: SiteConfig, signing_key: EllipticCurvePrivateKey) -> Member:
    """Return the site as a roster has it: its name and agreement key, signed.

    Raises:
        ConfigError: The key is missing, others can read it, or it is none.
    """
    return signed_member(config.name, own_public(config), signing_key)


def public_line(config: SiteConfig, signing_key: EllipticCurvePrivateKey) -> str:
    """Return what `site.pub` holds: the public half of a signing key, and as its comment the agreement key, signed."""
    return f"{public_key_text(signing_key.public_key())} {member_text(own_member(config, signing_key))}\n"


def read_agreement_key(file: Path) -> bytes:
    """Return a private agreement key, 32 raw bytes.

    Raises:
        ConfigError: The file is missing, others can read it, or it holds no such key.
    """
    digits = read_secret(file)
    try:
        key = bytes.fromhex(digits.decode("ascii"))
        if len(key) != KEY_BYTES:
            raise ValueError
    except ValueError:
        raise ConfigError(f"{file}: expected an agreement key, {2 * KEY_BYTES} hexadecimal digits") from None
    return key
