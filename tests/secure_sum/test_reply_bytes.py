"""How many bytes a masked reply has beside the same one in float32: whole messages, shares and numbers included."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
from summing import party

from fedrag.config.run_settings import FederationConfig
from fedrag.federation.messages import Reply, Request, reply_content
from fedrag.federation.secure_messages import content_to_bytes, masked_content
from fedrag.federation.secure_vector import train_layout, train_vector
from fedrag.secure_sum.masking import mask

METRICS = ("loss", "last_loss", "norm", "steps", "tokens")


@pytest.mark.parametrize("sites", [3, 20])
def test_a_masked_reply_is_longer_than_one_of_float32_by_34_bytes_for_each_other_site_at_most(sites):
    state = {"generator": {"weight": np.zeros(5000, np.float32)}}
    request = Request("", 1, state, ("generator",), {"generator": 0})
    metrics = {**{f"generator.{name}": 1.5 for name in METRICS}, "seconds": 1.0}
    reply = Reply({"generator": np.full(5000, 0.001, np.float32)}, {"generator": 5}, metrics)
    plain = reply_content(reply, {"generator": request.manifest("generator")}, "float32")
    made = party(sites, sites)
    layout = train_layout(FederationConfig(), request, sites)
    vector = train_vector(FederationConfig(), request, reply, layout, secrets.token_bytes(32))
    masked, _ = mask(vector, layout, "site-00", made.keys["site-00"], made.terms, made.context)
    longer = len(content_to_bytes(masked_content(masked, made.terms, "site-00"))) - len(content_to_bytes(plain))
    assert 0 < longer <= 34 * (sites - 1)
