"""The retriever's training: the right tensors change, the losses are the published ones, frozen sides stay."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss, MultipleNegativesRankingLoss
from transformers import PreTrainedModel

from fedrag.config.training_settings import RetrieverConfig
from fedrag.errors import TrainingDiverged
from fedrag.models.retriever import Retriever
from fedrag.training.guide import Guide
from fedrag.training.losses import Losses
from fedrag.training.retriever_examples import PassageText, RetrieverExample
from fedrag.training.retriever_training import train_retriever
from fedrag.weights.store import find_model

COMBINATIONS = [(weights, side) for weights in ("lora", "full") for side in ("query", "both")]
FLOAT32 = 1e-4
"""How far a loss in float32 may lie from one in float64: similarities are multiplied by the scale."""

TEXTS = {
    "rye": "The rye dough rests for eighteen hours.",
    "tyre": "A flat tyre is repaired for four crowns.",
    "tram": "Tram line 3 runs to the zoo.",
    "owl": "A copper owl sits on the roof.",
    "chess": "The chess club meets in the tea house.",
}
PASSAGES = {name: PassageText(name, text) for name, text in TEXTS.items()}


def labelled(question: str, right: str, *others_right: str, hard: tuple[str, ...] = ()) -> RetrieverExample:
    negatives = tuple(PASSAGES[name] for name in hard)
    return RetrieverExample(question, frozenset({right, *others_right}), PASSAGES[right], negatives)


def scored(question: str, **scores: float) -> RetrieverExample:
    candidates = tuple(PASSAGES[name] for name in scores)
    return RetrieverExample(question, candidates=candidates, answer_scores=tuple(scores.values()))


LABELLED = [labelled("How long does it rest?", "rye"), labelled("What does it cost?", "tyre"), labelled("Who?", "tram")]
SCORED = [
    scored("How long does it rest?", rye=-0.2, tyre=-1.0, tram=-1.3, owl=-1.1),
    scored("What sits there?", owl=-0.4, rye=-0.9),
    scored("Where?", chess=-0.5, tram=-0.55, owl=-2.0),
]


def settings_of(**changes: Any) -> dict[str, Any]:
    base = {"schedule": "constant", "warmup": 0.0, "learning_rate": 1e-3, "clip_norm": 1e9, "batch_size": 8}
    return base | changes


def first_loss(retriever: Retriever, examples: list[RetrieverExample]) -> float:
    """Return the loss of one batch before its step."""
    result = train_retriever(retriever, examples, retriever.config, seed=0)
    assert result.steps == 1
    return result.loss


def losses_before_and_after_a_step(retriever: Retriever, examples: list[RetrieverExample]) -> tuple[float, float]:
    return first_loss(retriever, examples), first_loss(retriever, examples)


def vectors_of(retriever: Retriever, examples: list[RetrieverExample]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    queries = retriever.encode_queries([example.question for example in examples]).astype(np.float64)
    passages = retriever.encode_passages(list(TEXTS.values())).astype(np.float64)
    return queries, dict(zip(TEXTS, passages, strict=True))


def softmax64(values: list[float]) -> np.ndarray:
    powers = np.exp(np.array(values) - max(values))
    return powers / powers.sum()


# LSR


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
@pytest.mark.parametrize(("weights", "side"), COMBINATIONS)
def test_after_an_lsr_step_the_encoder_has_changed_and_the_loss_has_fallen(load_retriever, weights, side, divergence):
    settings = settings_of(
        weights=weights,
        loss="lsr",
        lsr={"side": side, "divergence": divergence},
        learning_rate=1e-2 if weights == "lora" else 1e-4,
        warmup=0.05,  # the default: the very first step must already learn
    )
    retriever = load_retriever(**settings)
    queries, passages = retriever.encode_queries(["Who?"]), retriever.encode_passages(list(TEXTS.values()))
    before = {name: parameter.detach().clone() for name, parameter in retriever.parameters().items()}
    first, second = losses_before_and_after_a_step(retriever, SCORED)
    assert second < first - 1e-4
    assert any(not torch.equal(parameter, before[name]) for name, parameter in retriever.parameters().items())
    assert np.abs(retriever.encode_queries(["Who?"]) - queries).max() > 1e-5
    same = np.array_equal(retriever.encode_passages(list(TEXTS.values())), passages)
    assert same == (side == "query")


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
@pytest.mark.parametrize(("tau_lm", "tau_r"), [(0.1, 0.05), (0.5, 0.05), (0.1, 0.3)])
def test_the_lsr_loss_is_the_divergence_by_hand_with_both_temperatures(load_retriever, tau_lm, tau_r, divergence):
    lsr = {"tau_lm": tau_lm, "tau_r": tau_r, "divergence": divergence}
    retriever = load_retriever(**settings_of(loss="lsr", lsr=lsr))
    queries, passages = vectors_of(retriever, SCORED)
    expected = []
    for query, example in zip(queries, SCORED, strict=True):
        p = softmax64([float(query @ passages[c.passage_id]) / tau_r for c in example.candidates])
        target = softmax64([score / tau_lm for score in example.answer_scores])
        a, b = (target, p) if divergence == "forward" else (p, target)
        expected.append(float((a * np.log(a / b)).sum()))
    assert first_loss(retriever, SCORED) == pytest.approx(np.mean(expected), abs=1e-5)


@pytest.mark.parametrize("divergence", ["forward", "reverse"])
def test_with_ranks_as_target_it_is_the_divergence_from_one_over_the_rank(load_retriever, divergence):
    lsr = {"target": "rank", "tau_lm": 7.0, "tau_r": 0.05, "divergence": divergence}  # tau_lm has no part in it
    retriever = load_retriever(**settings_of(loss="lsr", lsr=lsr))
    queries, passages = vectors_of(retriever, SCORED)
    expected = []
    for query, example, ranks in zip(queries, SCORED, ([1, 2, 4, 3], [1, 2], [1, 2, 3]), strict=True):
        p = softmax64([float(query @ passages[c.passage_id]) / 0.05 for c in example.candidates])
        target = 1 / np.array(ranks, np.float64)
        target /= target.sum()
        a, b = (target, p) if divergence == "forward" else (p, target)
        expected.append(float((a * np.log(a / b)).sum()))
    assert first_loss(retriever, SCORED) == pytest.approx(np.mean(expected), abs=1e-5)


def test_equal_scores_pull_towards_equal_similarities(load_retriever):
    retriever = load_retriever(**settings_of(loss="lsr", epochs=30, learning_rate=1e-2))
    example = scored("Who?", rye=-1.0, tyre=-1.0, owl=-1.0)
    train_retriever(retriever, [example], retriever.config, seed=0)
    queries, passages = vectors_of(retriever, [example])
    similarities = [float(queries[0] @ passages[name]) for name in ("rye", "tyre", "owl")]
    assert np.ptp(similarities) < 0.01


def test_the_retriever_comes_to_prefer_what_the_generator_prefers(load_retriever):
    retriever = load_retriever(**settings_of(loss="lsr", epochs=60, learning_rate=1e-2))
    train_retriever(retriever, SCORED, retriever.config, seed=0)
    queries, passages = vectors_of(retriever, SCORED)
    for query, example in zip(queries, SCORED, strict=True):
        similarities = [float(query @ passages[c.passage_id]) for c in example.candidates]
        assert np.argmax(similarities) == np.argmax(example.answer_scores)


@pytest.mark.parametrize("side", ["query", "both"])
def test_a_question_with_fewer_candidates_gives_finite_gradients(load_retriever, side):
    retriever = load_retriever(**settings_of(loss="lsr", lsr={"side": side}))
    result = train_retriever(retriever, SCORED, retriever.config, seed=0)
    assert all(np.isfinite(tensor).all() for tensor in result.update.values())


def test_a_question_with_a_single_candidate_teaches_nothing(load_retriever):
    retriever = load_retriever(**settings_of(loss="lsr"))
    result = train_retriever(retriever, [scored("Who?", rye=-1.0)], retriever.config, seed=0)
    assert result.loss == 0.0
    assert not any(tensor.any() for tensor in result.update.values())


# Contrastive


def reference_loss(retriever: Retriever, columns: list[list[str]], scale: float | None = None) -> float:
    """Return sentence-transformers' own loss on texts in columns: questions, positives, hard negatives."""
    loss = MultipleNegativesRankingLoss(retriever.encoder, scale=scale or retriever.fitting_scale)
    features = [retriever.encoder.preprocess(texts) for texts in columns]
    with torch.no_grad():
        return float(loss(features, labels=torch.zeros(0)).item())


@pytest.mark.parametrize("weights", ["lora", "full"])
@pytest.mark.parametrize("scale", [20.0, 5.0])
def test_without_false_negatives_it_is_the_loss_of_sentence_transformers(load_retriever, weights, scale):
    retriever = load_retriever(**settings_of(weights=weights, contrastive={"scale": scale}))
    columns = [[e.question for e in LABELLED], [e.positive.text for e in LABELLED if e.positive]]
    expected = reference_loss(retriever, columns, scale)
    assert first_loss(retriever, LABELLED) == pytest.approx(expected, abs=FLOAT32)


def test_with_a_hard_negative_each_it_is_the_loss_of_sentence_transformers(load_retriever):
    retriever = load_retriever(**settings_of())
    examples = [
        replace(LABELLED[0], hard_negatives=(PASSAGES["owl"],)),
        replace(LABELLED[1], hard_negatives=(PASSAGES["chess"],)),
    ]
    columns = [[e.question for e in examples], [TEXTS["rye"], TEXTS["tyre"]], [TEXTS["owl"], TEXTS["chess"]]]
    expected = reference_loss(retriever, columns)
    assert first_loss(retriever, examples) == pytest.approx(expected, abs=FLOAT32)


def infonce_by_hand(retriever: Retriever, rows: list[tuple[str, str, list[str]]]) -> float:
    """Return the mean of -log softmax over (question, right passage, wrong passages)."""
    terms = []
    for question, right, wrong in rows:
        query = retriever.encode_queries([question])[0].astype(np.float64)
        vectors = retriever.encode_passages([TEXTS[name] for name in (right, *wrong)]).astype(np.float64)
        terms.append(-np.log(softmax64((retriever.fitting_scale * vectors @ query).tolist())[0]))
    return float(np.mean(terms))


def test_the_right_passage_that_another_question_brings_is_no_negative(load_retriever):
    retriever = load_retriever(**settings_of())
    examples = [labelled("How long?", "rye"), labelled("Who?", "tram", hard=("rye",))]
    expected = infonce_by_hand(retriever, [("How long?", "rye", ["tram"]), ("Who?", "tram", ["rye", "rye"])])
    assert first_loss(retriever, examples) == pytest.approx(expected, abs=FLOAT32)


def test_another_right_passage_of_the_same_question_is_no_negative(load_retriever):
    retriever = load_retriever(**settings_of())
    examples = [labelled("Who?", "rye", "owl"), labelled("Who?", "owl", "rye"), labelled("Where?", "tram")]
    expected = infonce_by_hand(
        retriever,
        [("Who?", "rye", ["tram"]), ("Who?", "owl", ["tram"]), ("Where?", "tram", ["rye", "owl"])],
    )
    assert first_loss(retriever, examples) == pytest.approx(expected, abs=FLOAT32)


def test_another_questions_hard_negative_that_is_right_here_is_no_negative(load_retriever):
    retriever = load_retriever(**settings_of())
    examples = [labelled("Who?", "rye", hard=("tram",)), labelled("Where?", "tram", hard=("owl",))]
    expected = infonce_by_hand(
        retriever, [("Who?", "rye", ["tram", "tram", "owl"]), ("Where?", "tram", ["rye", "owl"])]
    )
    assert first_loss(retriever, examples) == pytest.approx(expected, abs=FLOAT32)


@pytest.mark.parametrize(("weights", "side"), COMBINATIONS)
def test_after_a_contrastive_step_the_loss_has_fallen_and_a_frozen_side_is_as_it_was(load_retriever, weights, side):
    rate = 1e-2 if weights == "lora" else 1e-4
    retriever = load_retriever(**settings_of(weights=weights, contrastive={"side": side}, learning_rate=rate))
    passages = retriever.encode_passages(list(TEXTS.values()))
    first, second = losses_before_and_after_a_step(retriever, LABELLED)
    assert second < first - 1e-4
    same = np.array_equal(retriever.encode_passages(list(TEXTS.values())), passages)
    assert same == (side == "query")


# The untouched retriever as a guide


@pytest.mark.parametrize("n_hard", [0, 1])
@pytest.mark.parametrize(("weights", "side"), COMBINATIONS)
def test_with_a_guide_it_is_the_gist_loss_of_sentence_transformers(
    load_retriever, random_tensors, weights, side, n_hard
):
    contrastive = {"scale": 20.0, "side": side}
    settings = settings_of(weights=weights, contrastive=contrastive | {"guide": "untouched"})
    retriever = load_retriever(**settings)
    state = random_tensors(retriever.initial_state(0), scale=0.1 if weights == "lora" else 0.02)
    retriever.set_state(state)  # the model that learns is no longer the guide
    examples = [
        replace(example, hard_negatives=tuple(PASSAGES[name] for name in hard[:n_hard]))
        for example, hard in zip(LABELLED, (["owl"], ["chess"], ["owl"]), strict=True)
    ]
    columns = [[e.question for e in examples], [e.positive.text for e in examples if e.positive]]
    columns += [[e.hard_negatives[k].text for e in examples] for k in range(n_hard)]
    queries, passages = retriever.encode_queries(columns[0]), retriever.encode_passages(sum(columns[1:], []))
    guide = SentenceTransformer(str(retriever.fetched.folder), device="cpu")
    options = {"contrast_anchors": False, "contrast_positives": False}  # a question meets passages only
    theirs = GISTEmbedLoss(_Given(guide, queries, passages), guide, temperature=1 / 20, **options)
    features = [guide.preprocess(texts) for texts in columns]
    with torch.no_grad():
        expected = float(theirs(features, labels=torch.zeros(0)).item())
    assert first_loss(retriever, examples) == pytest.approx(expected, abs=FLOAT32)
    retriever.set_state(state)
    unguided = RetrieverConfig.model_validate(settings | {"contrastive": contrastive, "lora": retriever.config.lora})
    assert train_retriever(retriever, examples, unguided, seed=0).loss > expected + 0.01  # it vetoed something


class _Given(torch.nn.Module):
    """Gives the vectors that fedrag computes, with either side trained, to a loss that takes one model."""

    def __init__(self, guide: SentenceTransformer, queries: np.ndarray, passages: np.ndarray) -> None:
        super().__init__()
        self.tokenizer, self.max_seq_length = guide.tokenizer, guide.max_seq_length
        self._left = torch.from_numpy(np.concatenate([queries, passages]))

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        """The loss embeds column after column, or all of them at once."""
        n_rows = len(features["input_ids"])
        given, self._left = self._left[:n_rows], self._left[n_rows:]
        return {"sentence_embedding": given}


def test_a_guide_reads_the_base_whatever_was_learnt_and_changes_no_state(load_retriever, random_tensors):
    vetoes = []
    for scale in (0.0, 0.5):
        retriever = load_retriever(**settings_of())
        retriever.set_state(random_tensors(retriever.initial_state(0), scale=scale))
        before = retriever.encode_queries(["Who?"])
        guide = Guide.of(retriever, [*LABELLED, *SCORED])
        np.testing.assert_array_equal(retriever.encode_queries(["Who?"]), before)
        columns = [example.positive for example in LABELLED if example.positive]
        vetoes.append(guide.vetoes([example.question for example in LABELLED], [*columns, PASSAGES["rye"]]))
    assert torch.equal(*vetoes)
    assert vetoes[0].any()
    assert not vetoes[0].diagonal().any()


# Both


BOTH = [
    replace(e, candidates=s.candidates, answer_scores=s.answer_scores) for e, s in zip(LABELLED, SCORED, strict=True)
]


@pytest.mark.parametrize(("contrastive", "lsr"), [("both", "query"), ("query", "query"), ("query", "both")])
def test_both_losses_are_summed_with_their_weight(load_retriever, contrastive, lsr):
    sides = {"contrastive": {"side": contrastive}, "lsr": {"side": lsr}}
    total, parts = (
        [first_loss(load_retriever(**settings_of(loss=loss, lsr_weight=0.3, **sides)), BOTH) for loss in names]
        for names in (("both",), ("contrastive", "lsr"))
    )
    assert total[0] == pytest.approx(parts[0] + 0.3 * parts[1], abs=1e-5)


def test_each_loss_takes_the_questions_that_have_what_it_needs(load_retriever):
    mixed = [*LABELLED[:2], *SCORED[1:], RetrieverExample("Neither?")]
    together = first_loss(load_retriever(**settings_of(loss="both")), mixed)
    contrastive = first_loss(load_retriever(**settings_of(loss="contrastive")), LABELLED[:2])
    lsr = first_loss(load_retriever(**settings_of(loss="lsr")), SCORED[1:])
    assert together == pytest.approx(contrastive + lsr, abs=1e-5)


def test_a_frozen_contrastive_side_gets_no_gradient_from_it_where_lsr_trains_both(load_retriever):
    """Only the passage side differs between the two runs; LSR has no weight in either."""
    updates = []
    for side in ("query", "both"):
        settings = settings_of(loss="both", lsr_weight=0.0, contrastive={"side": side}, lsr={"side": "both"})
        retriever = load_retriever(**settings)
        updates.append(train_retriever(retriever, BOTH, retriever.config, seed=0).update)
    assert any(np.abs(updates[0][name] - updates[1][name]).max() > 1e-4 for name in updates[0])


# The model's own similarity, prompts and dimensions


KINDS = [("cosine", 0), ("cosine", 8), ("dot", 0), ("dot", 8)]


def similarities_of(retriever: Retriever, similarity: str, truncate_dim: int) -> tuple[np.ndarray, list[str]]:
    """Return the float64 similarities of the labelled questions with all texts, by the stock library's vectors."""
    stock = SentenceTransformer(str(retriever.fetched.folder), device="cpu", truncate_dim=truncate_dim or None)
    questions = [example.question for example in LABELLED]
    sides = stock.encode(questions, prompt="Q: "), stock.encode(list(TEXTS.values()), prompt="P: ")
    queries, passages = (vectors.astype(np.float64) for vectors in sides)
    if similarity == "cosine":
        queries, passages = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (queries, passages))
    return queries @ passages.T, list(TEXTS)


def kind_of_model(similarity: str, truncate_dim: int) -> dict[str, Any]:
    return {"similarity": similarity, "truncate_dim": truncate_dim, "query_prompt": "Q: ", "passage_prompt": "P: "}


@pytest.mark.parametrize(("similarity", "truncate_dim"), KINDS)
def test_the_contrastive_loss_is_that_of_the_models_own_similarity(
    load_retriever, made_encoder, similarity, truncate_dim
):
    name = made_encoder("plain", normalise=False)
    retriever = load_retriever(name, **settings_of(**kind_of_model(similarity, truncate_dim)))
    scores, names = similarities_of(retriever, similarity, truncate_dim)
    columns = [names.index(example.positive.passage_id) for example in LABELLED if example.positive]
    logits = retriever.fitting_scale * scores[:, columns]
    expected = np.mean([-np.log(softmax64(row.tolist())[i]) for i, row in enumerate(logits)])
    assert first_loss(retriever, LABELLED) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("similarity", "truncate_dim"), KINDS)
def test_the_lsr_loss_is_that_of_the_models_own_similarity(load_retriever, made_encoder, similarity, truncate_dim):
    name = made_encoder("plain", normalise=False)
    kind = kind_of_model(similarity, truncate_dim)
    retriever = load_retriever(name, **settings_of(loss="lsr", **kind))
    scores, names = similarities_of(retriever, similarity, truncate_dim)
    expected = []
    for row, example in zip(scores, BOTH, strict=True):
        own = row[[names.index(candidate.passage_id) for candidate in example.candidates]]
        p = softmax64((own * retriever.fitting_scale).tolist())
        target = softmax64([score / 0.1 for score in example.answer_scores])
        expected.append(float((target * np.log(target / p)).sum()))
    assert first_loss(retriever, BOTH) == pytest.approx(np.mean(expected), abs=1e-4)


@pytest.mark.parametrize("loss", ["contrastive", "lsr", "both"])
def test_the_result_tells_the_temperatures_that_were_used(load_retriever, loss):
    retriever = load_retriever(**settings_of(loss=loss, lsr={"tau_r": 0.3}))
    found = train_retriever(retriever, BOTH, retriever.config, seed=0).temperatures
    expected = {"scale": retriever.fitting_scale, "tau_r": 0.3}
    assert found == {
        name: expected[name]
        for name in ("scale", "tau_r")
        if loss == "both" or (name == "scale") == (loss == "contrastive")
    }


# Training


@pytest.mark.parametrize("side", ["query", "both"])
def test_training_an_adapter_leaves_the_base_bit_identical(load_retriever, side):
    retriever = load_retriever(**settings_of(contrastive={"side": side}, epochs=5))
    base = SentenceTransformer(str(retriever.fetched.folder), device="cpu").state_dict()
    result = train_retriever(retriever, LABELLED, retriever.config, seed=0)
    assert result.update.keys() == retriever.parameters().keys()
    found = {n.replace(".base_layer.", "."): t for n, t in retriever.encoder.state_dict().items() if "lora_" not in n}
    assert found.keys() == base.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in base.items())
    with retriever.untouched():
        untouched = retriever.encode_queries(["Who?"])
    expected = SentenceTransformer(str(retriever.fetched.folder), device="cpu").encode_query(["Who?"])
    np.testing.assert_allclose(untouched, expected, atol=1e-6)


def test_full_weights_update_is_new_minus_received(load_retriever, random_tensors):
    retriever = load_retriever(**settings_of(weights="full"))
    state = random_tensors(retriever.initial_state(0), scale=0.02)
    retriever.set_state(state)
    result = train_retriever(retriever, LABELLED, retriever.config, seed=0, received=state)
    trained = retriever.encode_queries(["Who?"])
    again = load_retriever(**settings_of(weights="full"))
    again.set_state({name: state[name] + result.update[name] for name in state})
    np.testing.assert_allclose(again.encode_queries(["Who?"]), trained, atol=1e-5)


def test_fedprox_keeps_the_retriever_near_the_received_state(load_retriever):
    norms = []
    for mu in (0.0, 100.0):
        retriever = load_retriever(**settings_of(weights="full", epochs=20))
        result = train_retriever(retriever, LABELLED, retriever.config, seed=0, proximal_mu=mu)
        norms.append(sum(float((tensor**2).sum()) for tensor in result.update.values()) ** 0.5)
    assert norms[1] < 0.5 * norms[0]


@pytest.mark.parametrize("loss", ["contrastive", "lsr"])
def test_the_same_seed_gives_the_same_bits_with_dropout_too(load_retriever, loss):
    updates = []
    for seed in (1, 1, 2):
        retriever = load_retriever(**settings_of(loss=loss))
        for module in retriever.encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1
        updates.append(train_retriever(retriever, BOTH, retriever.config, seed=seed).update)
    assert all(np.array_equal(updates[0][name], updates[1][name]) for name in updates[0])
    assert any(not np.array_equal(updates[0][name], updates[2][name]) for name in updates[0])


def test_a_loss_that_is_not_finite_stops_the_training_before_anything_changes(load_retriever):
    retriever = load_retriever(**settings_of())
    before = {name: parameter.detach().clone() for name, parameter in retriever.parameters().items()}
    broken = Losses(contrastive=lambda logits, masked: logits.sum() * float("nan"))
    with pytest.raises(TrainingDiverged, match="loss is not finite"):
        train_retriever(retriever, LABELLED, retriever.config, seed=0, losses=broken)
    assert all(torch.equal(parameter, before[name]) for name, parameter in retriever.parameters().items())
    assert not retriever.encoder.training


def test_ones_own_losses_are_used(load_retriever):
    own = Losses(contrastive=lambda logits, masked: logits.mean() * 0 + 3.0, lsr=lambda p, t, v: p.mean() * 0 + 5.0)
    retriever = load_retriever(**settings_of(loss="both", lsr_weight=0.5))
    result = train_retriever(retriever, BOTH, RetrieverConfig.model_validate(retriever.config), seed=0, losses=own)
    assert result.loss == pytest.approx(5.5)


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "side"), COMBINATIONS)
def test_the_real_retriever_learns_from_an_lsr_step(real_models, weights, side):

    settings = settings_of(weights=weights, loss="lsr", lsr={"side": side})
    settings["learning_rate"] = 1e-4 if weights == "lora" else 1e-5  # AdamW's first step is a large one
    retriever = Retriever.load(
        find_model("sentence-transformers/all-MiniLM-L6-v2"), RetrieverConfig.model_validate(settings), "cpu"
    )
    for module in retriever.encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    passages = retriever.encode_passages(list(TEXTS.values()))
    first, second = losses_before_and_after_a_step(retriever, SCORED)
    assert second < first - 1e-3
    assert np.array_equal(retriever.encode_passages(list(TEXTS.values())), passages) == (side == "query")


def loss_curve(dtype: torch.dtype) -> tuple[list[float], Retriever]:
    settings = RetrieverConfig.model_validate(
        settings_of(weights="lora", loss="both", learning_rate=2e-3, epochs=12, batch_size=3)
    )
    fetched = find_model("sentence-transformers/all-MiniLM-L6-v2")
    retriever = Retriever.load(fetched, settings, "cpu", dtype)
    retriever.set_state(retriever.initial_state(seed=1))
    losses: list[float] = []
    examples = [
        replace(a, candidates=b.candidates, answer_scores=b.answer_scores)
        for a, b in zip(LABELLED, SCORED, strict=True)
    ]
    train_retriever(retriever, examples, settings, seed=0, on_step=lambda done, of, loss: losses.append(loss))
    return losses, retriever


@pytest.fixture(scope="module")
def in_bfloat16(real_models: Path) -> tuple[list[float], Retriever]:
    return loss_curve(torch.bfloat16)


@pytest.mark.slow
def test_training_in_bfloat16_follows_training_in_float32(in_bfloat16: tuple[list[float], Retriever]):
    exact, _ = loss_curve(torch.float32)
    short, retriever = in_bfloat16
    assert exact[-1] < exact[0] / 4
    assert short == pytest.approx(exact, abs=0.1 * exact[0])
    assert short[-1] < short[0] / 4
    assert {p.dtype for p in retriever.learner.parameters()} == {torch.bfloat16}


@pytest.mark.slow
def test_what_was_learnt_in_bfloat16_is_searched_in_float32(in_bfloat16: tuple[list[float], Retriever]):
    _, retriever = in_bfloat16
    assert {p.dtype for p in retriever.encoder.parameters()} == {torch.float32}
    assert {module.config._attn_implementation for module in retriever.encoder.modules() if is_bert(module)} == {"sdpa"}
    questions = [example.question for example in LABELLED]
    with torch.no_grad():
        learnt = retriever.embed_queries(questions).numpy()
    searched = retriever.encode_queries(questions)
    np.testing.assert_allclose((learnt * searched).sum(axis=1), 1.0, atol=2e-3)
    with retriever.untouched():
        assert ((learnt * retriever.encode_queries(questions)).sum(axis=1) < 0.99).all()


def is_bert(module: torch.nn.Module) -> bool:
    return isinstance(module, PreTrainedModel)
