"""How many bytes a scenario moves between the server and one site, without moving any."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components, find_component
from fedrag.config.averaging import averaging_of
from fedrag.config.scenario import Config
from fedrag.config.schedule import components_of, is_validated, rounds_training
from fedrag.federation.codec import byte_count, state_wire
from fedrag.federation.lora_factors import frozen_factor, trained_part
from fedrag.types import Component, State, Tensors


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes of the arrays between the server and one site; the text around them adds some kilobytes to a message.

    Attributes:
        to_site: Of the request to train, by round.
        back: Of the reply to it, by round.
        asked: Of all requests for scores or a diagnosis, whose replies hold no array.
        delivered: Of the result.
    """

    to_site: tuple[int, ...]
    back: tuple[int, ...]
    asked: int
    delivered: int

    @property
    def largest(self) -> int:
        """Bytes of the largest request."""
        return max(*self.to_site, self.delivered, 0)

    def total(self, trained: int, sites: int) -> int:
        """Return the bytes of a run of so many sites, of which so many train in each round."""
        return trained * (sum(self.to_site) + sum(self.back)) + sites * (self.asked + self.delivered)


def traffic(config: Config, state: State, components: Components = SHIPPED) -> Traffic:
    """Count the bytes between the server and a site that takes part in every round.

    Args:
        config: The scenario.
        state: What the run trains or takes over.
        components: What can be trained, by name.
    """
    federation = config.federation
    rounds = [components_of(federation, number) for number in range(1, federation.rounds + 1)]
    sizes = {name: _size(tensors) for name, tensors in state.items()}
    down = {name: byte_count(size, state_wire(federation.wire)) for name, size in sizes.items()}
    requests = sum(is_validated(federation, number) for number in range(1, federation.rounds + 1))
    requests += (federation.keep == "best") + 2 * federation.diagnose
    return Traffic(
        to_site=tuple(sum(down[c] for c in state_of_round(config, names, sizes, components)) for names in rounds),
        back=tuple(
            sum(_bytes_back(config, state[name], name, number) for name in names)
            for number, names in enumerate(rounds, start=1)
        ),
        asked=requests * sum(down.values()),
        delivered=federation.deliver * sum(byte_count(size, "float32") for size in sizes.values()),
    )


def _bytes_back(config: Config, tensors: Tensors, component: Component, round_number: int) -> int:
    """Return the bytes of a reply's update of a component: what is frozen in the round is not sent."""
    past = rounds_training(config.federation, component, before=round_number)
    frozen = frozen_factor(averaging_of(config.federation, component).rule, past)
    size = _size(trained_part(tensors, frozen))
    if config.federation.secure:
        return size * config.federation.secure_bits // 8
    return byte_count(size, config.federation.wire)


def _size(tensors: Tensors) -> int:
    return sum(tensor.size for tensor in tensors.values())


def state_of_round(
    config: Config, names: Collection[Component], held: Collection[Component], components: Components = SHIPPED
) -> set[Component]:
    """Return the components whose state a round needs: one may use another's.

    Args:
        config: The scenario.
        names: The components that the round trains.
        held: The components whose state there is.
        components: What can be trained, by name.
    """
    if config.iterates:
        return set(held)
    used = (find_component(components, name).needs_state_of(config) for name in names)
    return set(names).union(*used).intersection(held)
