"""The errors that fedrag raises on purpose.

```
FedragError                 the user can fix it; the message is one sentence; exit code 2
├── ConfigError             a scenario, a site.toml or a command-line value is not valid
├── DataError               a file of a site's folder is malformed; the message names file and line
├── ModelError              a model is missing, incomplete or of the wrong kind
├── RunError                a run folder is missing, damaged or of another version
├── MessageError            a message between server and site is malformed
│   └── SignatureError      a message lacks the signature of its sender
├── TrainingDiverged        a loss is no longer a number
├── TrainingProcessLost     a process that trained with others ended
├── QuorumError             too few sites gave a valid reply; the run can be resumed
├── ServiceError            a coordinator or site does not run, or runs already
└── StorageError            a file cannot be written
```
"""

from __future__ import annotations


class FedragError(Exception):
    """Base of all errors whose message is meant for the user."""

    exit_code = 2


class ConfigError(FedragError):
    """A scenario, a site.toml or a command-line value is not valid."""


class DataError(FedragError):
    """A site's data is missing or malformed; the message names file and line."""


class ModelError(FedragError):
    """A model is missing, incomplete, altered or of the wrong kind."""


class RunError(FedragError):
    """A run folder is missing, damaged, or was written by another version."""


class MessageError(FedragError):
    """A message between server and site is malformed."""


class SignatureError(MessageError):
    """A message lacks the signature of its sender."""


class TrainingDiverged(FedragError):
    """The loss or its gradient is not a finite number; the site's round is lost."""


class TrainingProcessLost(FedragError):
    """A process that trained together with others ended; the site's round is lost."""


class QuorumError(FedragError):
    """Fewer sites than the quorum gave a valid reply; the run stops and can be resumed."""


class ServiceError(FedragError):
    """A coordinator or a site does not run, runs already, or cannot be reached."""


class StorageError(FedragError):
    """A file cannot be written, for example because the disk is full."""
