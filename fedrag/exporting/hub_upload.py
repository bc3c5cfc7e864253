"""A repository of the model hub to which an export is uploaded: a new one is private."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from fedrag.errors import ConfigError


@dataclass(frozen=True)
class HubRepository:
    """A repository that the user may write to.

    Attributes:
        name: Its id, `owner/name`.
        api: The hub's client.
    """

    name: str
    api: HfApi

    @classmethod
    def reach(cls, name: str) -> HubRepository:
        """Find out who the user is at the hub, before anything is written.

        Raises:
            ConfigError: The id is none, there is no token, it is not valid, or the hub is not reached.
        """
        try:
            validate_repo_id(name)
        except HFValidationError:
            raise ConfigError(f'--push {name}: expected a repository of the model hub, as "owner/name"') from None
        if constants.HF_HUB_OFFLINE:
            raise ConfigError("--push: the model hub is not asked, since HF_HUB_OFFLINE is set")
        if not get_token():
            raise ConfigError("--push: there is no token of the model hub here; run: hf auth login, or set HF_TOKEN")
        api = HfApi(library_name="fedrag")
        try:
            user = api.whoami()["name"]
        except Exception as error:  # versions of the hub's client raise requests', httpx's or their own errors
            raise ConfigError(f"--push: the model hub does not take the token: {_first_line(error)}") from None
        return cls(name if "/" in name else f"{user}/{name}", api)

    def upload(self, folder: Path) -> str:
        """Upload a folder in one commit, and return the page's address; a repository that is not there is made private.

        Raises:
            ConfigError: The hub refuses it, or the connection broke off; the folder stays.
        """
        try:
            self.api.create_repo(self.name, private=True, exist_ok=True)
            self.api.upload_folder(repo_id=self.name, folder_path=folder, commit_message="Upload with fedrag")
        except Exception as error:  # see above
            raise ConfigError(
                f"{folder} is written, but was not pushed: {_first_line(error)}; push it with: "
                f"hf upload {self.name} {folder}"
            ) from None
        return f"{constants.ENDPOINT}/{self.name}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
