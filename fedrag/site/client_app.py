"""The site's Flower `ClientApp`: opens a request, does the step, writes the reply.

What goes wrong stays at the site: a refusal code and the id of an entry in the site's own log leave.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedrag import __version__
from fedrag.components.base_models import base_identities
from fedrag.components.crew import ALONE, Crew
from fedrag.components.own_functions import own_losses
from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components
from fedrag.components.work import OnProgress, Workbench
from fedrag.config.scenario import Config
from fedrag.data.questions import question_counts
from fedrag.errors import FedragError, TrainingDiverged
from fedrag.federation.greeting import Greeting, greeting_content
from fedrag.federation.messages import (
    DELIVER,
    GREET,
    HOME,
    TRAIN,
    VALIDATE,
    Reply,
    Request,
    open_request,
    reply_content,
)
from fedrag.federation.secure_messages import REVEAL
from fedrag.runs.home_results import HOME_FOLDER, key_of, save_home
from fedrag.seeding import derive_seed
from fedrag.site.acceptance import accept_delivery
from fedrag.site.home_training import train_at_home
from fedrag.site.policy import apply_to_greeting, apply_to_reply
from fedrag.site.refusal import DeadlinePassed, refusal_code
from fedrag.site.secure_round import SecureLimits, answer_reveal, secure_round
from fedrag.site.site_config import Policy
from fedrag.site.site_paths import SitePaths
from fedrag.site.steps import train_site
from fedrag.site.validation import validate_site
from fedrag.training.losses import Losses

log = logging.getLogger("fedrag.site")

Step = Callable[[Workbench, Request], Reply]


@dataclass(frozen=True, slots=True)
class _Setup:
    """What a client app answers with, whatever it is asked."""

    losses: Losses
    on_progress: OnProgress | None
    policy: Policy | None
    components: Components
    crew: Crew


def make_client_app(
    losses: Losses = Losses(),
    on_progress: OnProgress | None = None,
    policy: Policy | None = None,
    components: Components = SHIPPED,
    crew: Crew = ALONE,
) -> ClientApp:
    """Return the client app of a site.

    Args:
        losses: The loss functions it trains with.
        on_progress: Called with (what, done, in all) while it works; nothing of it leaves the site.
        policy: What of its greetings and replies may leave the site; None: all of them.
        components: What can be trained, by name.
        crew: The processes that train together here.
    """
    app = ClientApp()
    setup = _Setup(losses, on_progress, policy, components, crew)

    def handle(message: Message, context: Context, step: Step) -> Message:
        return Message(_answer(message, context, step, setup), reply_to=message)

    @app.query(GREET.partition(".")[2])
    def greet(message: Message, context: Context) -> Message:
        return Message(_greet(message, context, setup), reply_to=message)

    @app.train(TRAIN.partition(".")[2])
    def train(message: Message, context: Context) -> Message:
        fewest, most = (policy.min_examples, policy.max_epsilon) if policy else (1, 0.0)
        return handle(message, context, lambda bench, request: train_site(bench, request, components, fewest, most))

    @app.evaluate(VALIDATE.partition(".")[2])
    def validate(message: Message, context: Context) -> Message:
        tells = policy is None or policy.tell_diagnosis
        return handle(
            message, context, lambda bench, request: validate_site(bench, request, components, tells_diagnosis=tells)
        )

    @app.query(REVEAL.partition(".")[2])
    def reveal(message: Message, context: Context) -> Message:
        return Message(_reveal(message, context, setup), reply_to=message)

    @app.query(DELIVER.partition(".")[2])
    def deliver(message: Message, context: Context) -> Message:
        adopts = policy is None or policy.adopt == "always"
        return handle(
            message, context, lambda bench, request: accept_delivery(bench, request, components, adopts=adopts)
        )

    if policy is None:  # of a simulation: no coordinator asks a deployed site to train at home

        @app.train(HOME.partition(".")[2])
        def train_home(message: Message, context: Context) -> Message:
            return handle(message, context, lambda bench, request: _train_at_home(bench, request, components))

    return app


def _train_at_home(bench: Workbench, request: Request, components: Components) -> Reply:
    """Train the result on, and write down what the site keeps of it; nothing of it is in the reply."""
    epochs = bench.config.federation.personalise
    found = train_at_home(bench, request.state, epochs, components)
    save_home(bench.cache / HOME_FOLDER, key_of(request.state, epochs), found)
    return Reply()


def _greet(message: Message, context: Context, setup: _Setup) -> RecordDict:
    try:
        config = Config.from_toml(open_request(message).scenario)
        paths = SitePaths.from_node_config(context.node_config, config)
        site = paths.load()
        models = base_identities(config, setup.components)
        counts = question_counts(site, with_unanswered=config.iterates)
        if config.federation.secure:  # nothing that the sums hide is told beside them
            counts = {name: min(count, 1) for name, count in counts.items()}
        greeting = Greeting(paths.name, __version__, counts, models)
        return greeting_content(apply_to_greeting(setup.policy, greeting) if setup.policy else greeting)
    except Exception as error:
        return reply_content(_refusal(error), {}, "float32")


def _answer(message: Message, context: Context, step: Step, setup: _Setup) -> RecordDict:
    """Do one step; whatever goes wrong becomes a refusal code."""
    request: Request | None = None
    try:
        request = open_request(message)
        config = Config.from_toml(request.scenario)
        paths = SitePaths.from_node_config(context.node_config, config)
        secure = None
        if message.metadata.message_type in (TRAIN, VALIDATE):
            secure = secure_round(message, paths.name, config, context.node_config, _limits(setup.policy))
        if secure and (kept := secure.answered(request)):
            return kept
        site = paths.load(request.round_number if message.metadata.message_type == TRAIN else None)
        losses = own_losses(config.own, setup.losses)
        bench = Workbench(
            site, paths.cache, paths.scores, config, losses, run=paths.run, indexes=paths.indexes, crew=setup.crew
        )
        max_rank = setup.policy.max_rank if setup.policy else paths.max_rank
        reply = step(
            replace(bench, max_rank=max_rank, on_progress=_until(request.deadline_s, setup.on_progress)), request
        )
        if setup.policy:
            answered = sum(bool(question.answers) for question in site.validation)
            # In a secure sum a site's counts are seen by nobody, and weigh its part.
            policy = (
                setup.policy.model_copy(update={"tell_counts": True, "secure": "allowed"}) if secure else setup.policy
            )
            reply = apply_to_reply(policy, reply, answered or len(site.validation))
        if secure and not reply.refusal:
            return secure.masked(request, reply)
        manifests = {component: request.manifest(component) for component in request.state}
        seed = derive_seed(config.seed, request.round_number, paths.name, "rounding")
        return reply_content(reply, manifests, request.wire, seed)
    except Exception as error:
        return reply_content(_refusal(error), {}, "float32")


def _reveal(message: Message, context: Context, setup: _Setup) -> RecordDict:
    """Reveal what opens a secure sum; whatever goes wrong becomes a refusal code."""
    try:
        return answer_reveal(message, context.node_config, _limits(setup.policy))
    except Exception as error:
        return reply_content(_refusal(error), {}, "float32")


def _limits(policy: Policy | None) -> SecureLimits:
    """Return what the site bounds in secure sums by itself."""
    return SecureLimits(policy.secure_min_sites, policy.secure_repeats) if policy else SecureLimits()


def _until(deadline_s: float, on_progress: OnProgress | None) -> OnProgress:
    """Return a progress function that ends the work once the deadline has passed."""
    end = time.monotonic() + deadline_s

    def check(what: str, done: int, total: int) -> None:
        if time.monotonic() > end:
            raise DeadlinePassed
        if on_progress:
            on_progress(what, done, total)

    return check


def _refusal(error: Exception) -> Reply:
    """Log an error at the site and return the code that leaves it."""
    error_id = secrets.token_hex(4)
    foreseen = isinstance(error, (FedragError, TrainingDiverged, DeadlinePassed))  # its text says all
    log.error("error %s: %s: %s", error_id, type(error).__name__, error, exc_info=None if foreseen else error)
    return Reply(refusal=refusal_code(error), error_id=error_id)


app = make_client_app()
