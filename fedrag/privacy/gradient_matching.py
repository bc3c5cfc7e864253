"""Finds the words of questions in a retriever's update, by gradient matching (Zhu et al. 2019, arXiv 1906.08935).

The attacker looks for token vectors whose gradient points where the update points, layer by layer

    mean over tensors of 1 - cos(gradient, -update)

by Adam on the vectors, and takes the nearest token of each. AdamW's first step is close to the sign of the gradient,
which is enough for the cosine. In his favour he knows the model, the loss, the labelled passages, which of them belong
together with a question of the batch, and how many tokens each question has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedrag.models.retriever import Retriever
from fedrag.types import Tensors

RATE = 0.2
"""Learning rate of the search, in standard deviations of an entry of a token's vector."""
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of questions and the labelled passage of each.

    Attributes:
        features: What the encoder is given of the questions.
        free: Which of the tokens (questions, length) are to be found: no special ones, no padding.
        passages: Texts, one a question.
    """

    features: dict[str, Any]
    free: torch.Tensor
    passages: tuple[str, ...]

    @classmethod
    def of(cls, retriever: Retriever, questions: Sequence[str], passages: Sequence[str]) -> Batch:
        """Return the batch of these questions."""
        features = retriever.query_features(questions)
        special = torch.tensor(retriever.encoder.tokenizer.all_special_ids, device=features["input_ids"].device)
        free = features["attention_mask"].bool() & ~torch.isin(features["input_ids"], special)
        prompt = retriever.encoder.tokenizer(retriever.prompt("query") or "", add_special_tokens=False)["input_ids"]
        free &= free.cumsum(1) > len(prompt)  # what stands before every question is known
        return cls(features, free, tuple(passages))

    def tokens(self) -> list[set[int]]:
        """Return the tokens of each question."""
        return self.by_question(self.features["input_ids"][self.free])

    def by_question(self, found: torch.Tensor) -> list[set[int]]:
        """Return tokens (all free places in order) as a set for each question."""
        rows = self.free.nonzero()[:, 0]
        return [set(found[rows == row].tolist()) for row in range(len(self.free))]


def match_gradients(
    retriever: Retriever,
    update: Tensors,
    batch: Batch,
    *,
    steps: int,
    seed: int,
    on_progress: OnProgress = lambda done, total: None,
) -> list[set[int]]:
    """Return the tokens that an attacker finds in an update, for each question of a batch.

    Args:
        retriever: In the state that the update begins at.
        update: What came back: differences of the trained tensors.
        batch: Its passages, and which places are free; the tokens there are not looked at.
        steps: Steps of the search.
        seed: Of where it begins.
        on_progress: Called with the steps done and all.
    """
    moved = [name for name, tensor in update.items() if tensor.any()]
    table = retriever.token_table().weight.detach()
    wanted = [-torch.from_numpy(update[name]).flatten().to(table.device) for name in moved]
    chance = torch.Generator().manual_seed(seed)
    rate = RATE * float(table.std())
    noise = torch.randn(int(batch.free.sum()), table.shape[1], generator=chance).to(table.device)
    vectors = (table.mean(0) + rate * noise).requires_grad_(True)
    search = torch.optim.Adam([vectors], lr=rate)
    length = table.norm(dim=1).mean()
    for step in range(steps):
        search.param_groups[0]["lr"] = rate * (1 - step / steps)
        gradients = matched_gradients(retriever, batch, vectors, moved)
        apart = [
            1 - functional.cosine_similarity(gradient.flatten(), aim, dim=0)
            for gradient, aim in zip(gradients, wanted, strict=True)
        ]
        too_long = (vectors.norm(dim=1).mean() - length) ** 2
        (vectors.grad,) = torch.autograd.grad(torch.stack(apart).mean() + 0.1 * too_long, [vectors])
        search.step()
        on_progress(step + 1, steps)
    return batch.by_question(_nearest(vectors.detach(), table, _never_in_a_text(retriever.encoder.tokenizer)))


def matched_gradients(
    retriever: Retriever, batch: Batch, vectors: torch.Tensor, names: Sequence[str]
) -> Sequence[torch.Tensor]:
    """Return the gradients of trained tensors, if the questions had these vectors (free places, dim) of tokens."""
    trained = [retriever.parameters()[name].requires_grad_(True) for name in names]
    with sdpa_kernel(SDPBackend.MATH):  # the only one that can be differentiated twice
        loss = _loss(retriever, batch, vectors)
        return torch.autograd.grad(loss, trained, create_graph=True)


def _loss(retriever: Retriever, batch: Batch, vectors: torch.Tensor) -> torch.Tensor:
    """Return the contrastive loss of the batch, whose questions are the vectors that are looked for."""
    with _in_place_of_tokens(retriever, batch.free, vectors):
        queries = retriever.embed_features(batch.features)
    logits = retriever.scale(retriever.config.contrastive.scale) * queries @ retriever.embed_passages(batch.passages).T
    return functional.cross_entropy(logits.float(), torch.arange(len(logits), device=logits.device))


@contextmanager
def _in_place_of_tokens(retriever: Retriever, free: torch.Tensor, vectors: torch.Tensor) -> Iterator[None]:
    """Let the encoder read vectors at the free places."""

    def put(module: Any, given: Any, embedded: torch.Tensor) -> torch.Tensor:
        return embedded.masked_scatter(free.unsqueeze(-1), vectors)

    handle = retriever.token_table().register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


def _never_in_a_text(tokenizer: Any) -> list[int]:
    """Return the tokens that stand in no text: special ones, and those that a vocabulary keeps free."""
    free = [number for token, number in tokenizer.get_vocab().items() if re.fullmatch(r"[\[<]unused_?\d+[\]>]", token)]
    return [*tokenizer.all_special_ids, *free]


def _nearest(vectors: torch.Tensor, table: torch.Tensor, not_meant: Sequence[int]) -> torch.Tensor:
    """Return the token whose vector points most nearly the same way, seen from the mean of all."""
    middle = table.mean(0)
    alike = functional.normalize(vectors - middle, dim=1) @ functional.normalize(table - middle, dim=1).T
    alike[:, list(not_meant)] = -2.0
    return alike.argmax(1)
