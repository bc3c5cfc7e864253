"""The errors that fedrag raises on purpose.

```
FedragError                 something the user can mend; the message is one sentence; exit code 2
├── ConfigError             a scenario or a command-line value
├── DataError               a file of a site's folder: names file and line
├── ModelError              a model that is missing, incomplete or of the wrong kind
├── RunError                a run folder that is missing, damaged or of another version
├── MessageError            a message between server and site that is not what was agreed
│   └── SignatureError      one that is not signed by the one it should come from
├── TrainingDiverged        a loss that is no longer a number
├── QuorumError             too few good replies to go on; the run can be resumed
├── ServiceError            a coordinator or site that does not run, or runs already
└── StorageError            a file could not be written
```
"""

from __future__ import annotations


class FedragError(Exception):
    """Base of all errors with a message meant for the person at the keyboard."""

    exit_code = 2


class ConfigError(FedragError):
    """A scenario, a site.toml or a command-line value is not valid."""


class DataError(FedragError):
    """A site's data is missing or malformed; the message names file and line."""


class ModelError(FedragError):
    """A model is missing, incomplete, altered, or cannot do what is asked."""


class RunError(FedragError):
    """A run folder is missing, damaged, or was written by another version."""


class MessageError(FedragError):
    """A message between server and site is not what was agreed."""


class SignatureError(MessageError):
    """A message is not signed by the one it should come from."""


class TrainingDiverged(FedragError):
    """The loss or its gradient is not a finite number; this site's round is lost."""


class QuorumError(FedragError):
    """Fewer sites than the quorum gave a valid reply; the run stops and can be resumed."""


class ServiceError(FedragError):
    """A coordinator or a site does not run, runs already, or cannot be reached."""


class StorageError(FedragError):
    """A file could not be written, for example because the disk is full."""
