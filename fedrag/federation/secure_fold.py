"""A round, and a validation, by secure sum: what `fold` and `scoring` do where single replies can be seen."""

from __future__ import annotations

from collections.abc import Sequence

from flwr.app import RecordDict

from fedrag.config.averaging import averaging_of
from fedrag.errors import MessageError, QuorumError
from fedrag.federation.exchange import Federation, KnownSite
from fedrag.federation.fold import Folded
from fedrag.federation.messages import TRAIN, VALIDATE, Request, request_content
from fedrag.federation.secure_exchange import SumRequest, secure_sum
from fedrag.federation.secure_vector import open_training, open_validation, train_layout, validation_layout
from fedrag.federation.update import unflatten
from fedrag.text import plural
from fedrag.types import Component

NOISE_LIMIT = 0.05
"""Share of an update's norm from which its rounding is worth a line; that of bfloat16 is about 0.002."""
NOT_MEASURED = (
    "secure sum: no site's loss, norm or counts are seen; the aggregation error, which takes single updates, cannot be "
    "measured, and federation.max_weight_ratio not be applied"
)


def fold_masked(
    federation: Federation, request: Request, content: RecordDict, chosen: Sequence[KnownSite], needed: int
) -> Folded:
    """Ask the chosen sites to train and open the sum of their masked replies; all of them are needed.

    Raises:
        QuorumError: Too few gave a valid reply, no attempt could be opened, or the sum is none that sites can send.
    """
    settings = federation.config.federation
    layout = train_layout(settings, request, len(chosen))
    opened, summed = secure_sum(
        federation,
        SumRequest(TRAIN, request, content, chosen, layout),
        lambda total, sites: open_training(settings, request, total, layout, sites),
    )
    for component, number in opened.clipped.items():
        norm = averaging_of(settings, component).secure_clip_norm
        federation.display.say(
            f"round {request.round_number}: {plural(number, 'update')} of the {component} had a norm above "
            f"{norm:g} and {'was' if number == 1 else 'were'} drawn in to it (secure_clip_norm)"
        )
    for component, noise in opened.noise.items():
        if noise > NOISE_LIMIT:
            federation.display.say(
                f"round {request.round_number}: rounding to whole numbers is {noise:.1%} of the mean update of the "
                f"{component}; lower its secure_clip_norm or federation.secure_max_examples, or set "
                "federation.secure_bits = 64"
            )
    return Folded(
        difference={c: unflatten(flat, request.manifest(c)) for c, flat in sorted(opened.update.items())},
        sites={name: {"bytes": count} for name, count in sorted(summed.received.items())},
        left_out=dict(sorted(summed.left_out.items())),
        together=opened.told,
    )


def masked_scores(federation: Federation, request: Request, sites: Sequence[KnownSite]) -> dict[Component, float]:
    """Return a mean over all sites' validation questions for each component; none where the sum cannot be opened."""
    layout = validation_layout(request, len(sites))
    try:
        scores, _ = secure_sum(
            federation,
            SumRequest(VALIDATE, request, request_content(request), sites, layout),
            lambda total, count: open_validation(request, total, layout, count),
        )
    except (QuorumError, MessageError) as error:
        federation.display.say(f"there is no validation of round {request.round_number}: {error}")
        return {}
    return scores
