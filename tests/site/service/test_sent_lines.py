"""What a site's terminal says of what left: lines of a real egress log, as they are written."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedrag.federation.messages import DELIVER, GREET, TRAIN, VALIDATE, Reply, reply_content
from fedrag.federation.secure_messages import REVEAL
from fedrag.federation.signing import Slip
from fedrag.federation.update import manifest_of
from fedrag.site.egress import EGRESS_FILE, SUM_OF, SURVIVORS, EgressLog
from fedrag.site.service.sent_lines import SentLines

MANIFESTS = {"generator": manifest_of({"w": np.zeros(300, np.float32)})}
TRAINED = Reply({"generator": np.ones(300, np.float32)}, {"generator": 14}, {"generator.loss": 1.25, "seconds": 12.4})
REFUSED = Reply({}, {}, {}, refusal="policy-quiet-hours", error_id="00c0ffee")


def content(reply: Reply) -> RecordDict:
    return reply_content(reply, MANIFESTS, "float32")


def write(folder: Path, kind: str, reply: Reply, number: str = "", again: bool = False) -> None:
    slip = Slip("reply", "libraries-1", "0" * 32, "clinic", kind, "0.2.0", 0.0)
    EgressLog(folder / EGRESS_FILE).write(content(reply), slip, number, 12.4, again)


@pytest.fixture
def said() -> list[str]:
    return []


def test_each_step_is_one_line_and_what_was_there_before_is_none(tmp_path: Path, said: list[str]):
    write(tmp_path, TRAIN, TRAINED, "1")
    lines = SentLines(tmp_path, said.append)
    lines.tend()
    assert said == []
    write(tmp_path, GREET, TRAINED)
    write(tmp_path, TRAIN, TRAINED, "2")
    write(tmp_path, TRAIN, TRAINED, "2", again=True)
    write(tmp_path, VALIDATE, TRAINED, "2")
    lines.tend()
    write(tmp_path, TRAIN, REFUSED, "3")
    write(tmp_path, DELIVER, TRAINED)
    lines.tend()
    lines.tend()
    assert said == [
        "libraries-1: this site takes part",
        "libraries-1, round 2: an update from 14 questions was sent, 1.3 kB, generator loss 1.2500, 12 s",
        "libraries-1, round 3: a request was refused (policy-quiet-hours)",
        "libraries-1: the trained models are here",
    ]


def test_a_line_that_is_half_written_waits_for_its_end_and_a_torn_one_is_nothing(tmp_path: Path, said: list[str]):
    lines = SentLines(tmp_path, said.append)
    write(tmp_path, GREET, TRAINED)
    whole = (tmp_path / EGRESS_FILE).read_bytes()
    (tmp_path / EGRESS_FILE).write_bytes(b'{"kind": "train"\nnothing\n' + whole[:40])
    lines.tend()
    assert said == []
    with (tmp_path / EGRESS_FILE).open("ab") as file:
        file.write(whole[40:])
    lines.tend()
    assert said == ["libraries-1: this site takes part"]


def test_a_masked_update_tells_no_number_of_questions_and_a_reveal_the_hash_to_compare(tmp_path, said):
    lines = SentLines(tmp_path, said.append)
    log = EgressLog(tmp_path / EGRESS_FILE)
    slip = Slip("reply", "libraries-1", "0" * 32, "clinic", TRAIN, "0.2.0", 0.0)
    masked = RecordDict({"masked": ArrayRecord({"generator": Array(np.ones(300, np.uint8))})})
    log.write(RecordDict({**masked, "sealed": ConfigRecord({"shares": [b"a share"]})}), slip, "2", 3.0)
    revealed = RecordDict({"revealed": ConfigRecord({"survivors": ["clinic"], "shares": [b"secret share"]})})
    log.write(revealed, replace(slip, kind=REVEAL), "2", 0.1, asked={SURVIVORS: "abcd" * 16, SUM_OF: "clinic, east"})
    lines.tend()
    assert said[0].startswith("libraries-1, round 2: a masked update was sent, ")
    assert said[1] == "libraries-1, round 2: what opens the sum was sent, hash of its sites abcdabcdabcdabcd"
    raw = (tmp_path / EGRESS_FILE).read_bytes()
    for secret in (b"a share", b"secret share"):
        assert secret.hex().encode() not in raw
        assert secret not in raw
        assert hashlib.sha256(secret).hexdigest().encode() in raw
