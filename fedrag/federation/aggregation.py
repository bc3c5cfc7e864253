"""The server's aggregation: a weighted mean that is the same in any order, or a rule of the user's own.

Floating-point sums depend on the order in which replies arrive. `ExactMean` folds each weighted update into
fixed point instead, two 64-bit integers per element: integer sums are exact in any order, and memory does not
grow with the number of sites.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedrag.errors import ConfigError, MessageError, QuorumError
from fedrag.federation.update import Manifest, all_finite, flatten, unflatten
from fedrag.types import Array, Component, Tensors

Rule = Callable[..., Tensors]
"""A user's aggregation: the sites' differences (a list of named tensors) and weights (a list of numbers), in order of
site name, to one difference. It may ask for `component`, a name, and `state`, the tensors that the sites received."""

Combine = Callable[[list[Array], list[int]], Array]
"""An average of flat updates, in order of site name, with their weights."""

BLOCK = 16_384  # elements at a time: the work arrays stay in the processor's cache
WEIGHT_LIMIT = 2**29  # a float32 (24 bits) times a smaller weight is exact in float64 (53 bits)
HIGH_BITS = 61  # the sum of the high limbs stays below 2**61, so that carries cannot overflow it
LOW_BITS = 52  # one low limb stays within 2**51
ADDS_PER_CARRY = 1024  # 2**10 of them within 2**61


class Aggregator(Protocol):
    """What the server folds the sites' updates into."""

    def add(self, flat: Array, weight: int, site: str) -> None:
        """Take in one site's update, float32 of shape `(size,)`."""

    def result(self) -> Array:
        """Return the aggregate, float32 of shape `(size,)`."""


class ExactMean:
    """Weighted mean of updates, bit for bit the same in any order of arrival.

    With s the scale, a term `weight * value` is kept as `high / s + low / (s * 2**52)`: high is the rounded
    `term * s`, low the rest. The scale is the largest at which no sum can overflow: the fixed point
    spans 113 bits below `max_norm * max_weight_sum`. One site alone, or several with equal updates, give
    back the same float32 values (a negative zero comes back as zero).

    One 64-bit integer would not do. Each of 1,000 sites may be half a unit off, all together by
    `1000 / 2 * max_norm * 2**-62` of their mean: 1.1e-13 at the default norm limit of 1000. Equal updates would then
    come back unchanged only from 1.9e-6 on, where neighbouring float32 values lie twice as far apart, while full
    weights move by some 1e-5 a round and many of them by much less.

    Args:
        size: Elements of an update.
        max_norm: No element may be larger than this in absolute value.
        max_weight_sum: The weights may not add up to more than this.
    """

    def __init__(self, size: int, max_norm: float, max_weight_sum: int) -> None:
        exponent = math.frexp(max_norm * max_weight_sum)[1]  # the product is below 2**exponent
        self._scale = 2.0 ** (HIGH_BITS - exponent)
        self._max_norm = max_norm
        self._max_weight_sum = max_weight_sum
        self._high = np.zeros(size, dtype=np.int64)
        self._low = np.zeros(size, dtype=np.int64)
        self._work = np.empty((2, BLOCK), dtype=np.float64)
        self._limb = np.empty(BLOCK, dtype=np.int64)
        self._uncarried = 0
        self.weight_sum = 0
        self.count = 0

    def add(self, flat: Array, weight: int, site: str = "") -> None:
        """Add one update; the site's name plays no part, since order does not matter.

        Raises:
            MessageError: Shape, weight or values are out of bounds; nothing was added then.
        """
        self._check(flat, weight)
        factor = weight * self._scale
        for part in self._blocks():
            self._fold(flat[part], factor, part)
        self.weight_sum += weight
        self.count += 1
        self._uncarried += 1
        if self._uncarried >= ADDS_PER_CARRY:
            self._carry()

    def result(self) -> Array:
        """Return `sum(weight * update) / sum(weight)`: one division in float64, then float32.

        Raises:
            QuorumError: Nothing was added.
        """
        if self.count == 0:
            raise QuorumError("there is no update to average")
        self._carry()
        mean = np.empty(self._high.size, dtype=np.float32)
        for part in self._blocks():
            high, low = self._work[:, : part.stop - part.start]
            np.multiply(self._high[part], 1 / self._scale, out=high)
            np.multiply(self._low[part], 2.0**-LOW_BITS / self._scale, out=low)
            high += low
            np.divide(high, self.weight_sum, out=high)
            mean[part] = high
        return mean

    def _check(self, flat: Array, weight: int) -> None:
        if flat.dtype != np.float32 or flat.shape != self._high.shape:
            raise MessageError(
                f"an update is {flat.dtype} of shape {flat.shape}, expected float32 of shape {self._high.shape}"
            )
        if not 1 <= weight < WEIGHT_LIMIT:
            raise MessageError(f"the weight of an update is {weight}, expected 1 to {WEIGHT_LIMIT - 1}")
        if self.weight_sum + weight > self._max_weight_sum:
            raise MessageError(
                f"the weights of the updates add up to {self.weight_sum + weight}, "
                f"more than the agreed {self._max_weight_sum}"
            )
        largest = max(float(flat.max()), -float(flat.min())) if flat.size else 0.0
        if not largest <= self._max_norm:  # written so that NaN fails too
            raise MessageError(f"an update holds a value that is not within +-{self._max_norm:g}")

    def _fold(self, values: Array, factor: float, part: slice) -> None:
        """Add `values * factor` to one block, split into its two limbs; exact up to the last rounding."""
        term, high = self._work[:, : values.size]
        limb = self._limb[: values.size]
        np.copyto(term, values)
        term *= factor
        np.rint(term, out=high)
        np.copyto(limb, high, casting="unsafe")  # whole numbers already: nothing is lost
        self._high[part] += limb
        term -= high
        term *= 2.0**LOW_BITS
        np.rint(term, out=term)  # at 2**-113 of the bound, whatever the order
        np.copyto(limb, term, casting="unsafe")
        self._low[part] += limb

    def _carry(self) -> None:
        """Move whole units of the low limbs to the high ones; the sum stays the same."""
        for part in self._blocks():
            low = self._low[part]
            limb = self._limb[: low.size]
            np.right_shift(low, LOW_BITS, out=limb)
            self._high[part] += limb
            low &= 2**LOW_BITS - 1
        self._uncarried = 0

    def _blocks(self) -> Iterator[slice]:
        size = self._high.size
        return (slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK))


def weighted_sum(updates: Sequence[Array], weights: Sequence[float] | npt.NDArray[np.float64]) -> Array:
    """Return a weighted sum of updates, added in their order in float64 and then rounded to float32."""
    total = np.empty_like(updates[0])
    for start in range(0, total.size, BLOCK):
        part = np.stack([update[start : start + BLOCK] for update in updates]).astype(np.float64)
        total[start : start + BLOCK] = np.einsum("i,ij->j", weights, part)
    return total


class Collected:
    """Keeps the updates until all are there, for an average that needs to see them together.

    Args:
        combine: Takes the updates and weights in order of site name; returns one update.
        size: Elements of an update.
    """

    def __init__(self, combine: Combine, size: int) -> None:
        self._combine = combine
        self._size = size
        self._updates: dict[str, tuple[Array, int]] = {}

    def add(self, flat: Array, weight: int, site: str) -> None:
        """Keep one site's update; the array is not copied.

        Raises:
            MessageError: The array has another size, or the site has given an update already.
        """
        if site in self._updates:
            raise MessageError(f"site {site!r} gave two updates in one round")
        if flat.dtype != np.float32 or flat.shape != (self._size,):
            raise MessageError(
                f"an update is {flat.dtype} of shape {flat.shape}, expected float32 of shape ({self._size},)"
            )
        self._updates[site] = flat, weight

    def result(self) -> Array:
        """Combine the updates.

        Raises:
            QuorumError: Nothing was added.
            ConfigError: An own rule returned other names or shapes, or values that are not finite.
        """
        if not self._updates:
            raise QuorumError("there is no update to aggregate")
        ordered = [update for _, update in sorted(self._updates.items())]
        return self._combine([flat for flat, _ in ordered], [weight for _, weight in ordered])


def own_rule(rule: Rule, manifest: Manifest, component: Component = "", state: Tensors | None = None) -> Combine:
    """Return a user's own rule as a function of flat updates.

    Args:
        rule: Takes the differences and weights, and by these names, where its signature has them, `component` and
            `state`; returns one difference.
        manifest: Names and shapes of a difference.
        component: The component that is averaged.
        state: Its tensors as the sites received them; the rule gets views that cannot be written.
    """
    name = getattr(rule, "__name__", repr(rule))
    told = {"component": component, "state": _read_only(state or {})}
    wanted = {key: value for key, value in told.items() if key in _parameters(rule)}

    def combine(flats: list[Array], weights: list[int]) -> Array:
        aggregate = rule([unflatten(flat, manifest) for flat in flats], weights, **wanted)
        try:
            flat = flatten(aggregate, manifest)
        except MessageError as error:
            raise ConfigError(f"the aggregation rule {name} does not fit the component: {error}") from error
        if not all_finite(flat):
            raise ConfigError(f"the aggregation rule {name} returned a value that is not finite")
        return flat

    return combine


def _parameters(rule: Rule) -> Mapping[str, object]:
    try:
        return inspect.signature(rule).parameters
    except ValueError:  # a function written in C tells none
        return {}


def _read_only(state: Tensors) -> Tensors:
    views = {name: tensor.view() for name, tensor in state.items()}
    for view in views.values():
        view.flags.writeable = False
    return views
