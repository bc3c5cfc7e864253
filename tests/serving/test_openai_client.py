"""The service, asked by the client of OpenAI."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openai
import pytest
from served_site import QUESTION, Service
from tiny_federation import SHIPPED

from fedrag.data.site_folder import load_site
from fedrag.evaluation.ask import BeforeAndAfter
from fedrag.models.resident import RoundModels
from fedrag.runs.run_folder import RunFolder

NORTH = SHIPPED / "north"


@pytest.fixture
def client(service: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=service.api, api_key="none", max_retries=0)


def ask(client: openai.OpenAI, question: str, **options):
    return client.chat.completions.create(model="fedrag", messages=[{"role": "user", "content": question}], **options)


def test_the_models_are_the_one_in_use_and_the_run(client: openai.OpenAI):
    assert [(model.id, model.owned_by) for model in client.models.list()] == [("fedrag", "north"), ("tiny-1", "north")]
    assert client.models.retrieve("tiny-1").id == "tiny-1"
    with pytest.raises(openai.NotFoundError, match="there are 'fedrag' and 'tiny-1'"):
        client.models.retrieve("gpt-4")


def test_every_question_is_answered_as_ask_answers_it(client: openai.OpenAI, run: RunFolder):
    both = BeforeAndAfter.of_run(run.path, NORTH)
    for question in load_site(NORTH).test:
        reply, asked = ask(client, question.question), both.ask(question.question).trained
        assert reply.choices[0].message.content == asked.answer
        assert reply.choices[0].finish_reason == ("length" if asked.is_cut else "stop")
        found = reply.model_extra["fedrag"]["passages"]
        assert [(one["id"], one["score"], one["text"]) for one in found] == [
            (one.passage.id, one.score, one.passage.text) for one in asked.found
        ]
        assert reply.usage.total_tokens == asked.prompt_tokens + asked.answer_tokens


def test_questions_asked_at_once_get_the_answers_that_they_get_alone(client: openai.OpenAI):
    questions = [question.question for question in load_site(NORTH).questions]
    alone = [ask(client, question).choices[0].message.content for question in questions]
    with ThreadPoolExecutor(len(questions)) as pool:
        together = list(pool.map(lambda question: ask(client, question).choices[0].message.content, questions))
    assert together == alone


def test_a_stream_gives_the_same_words_one_after_the_other(client: openai.OpenAI):
    whole = ask(client, QUESTION)
    chunks = list(ask(client, QUESTION, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-2].model_extra["fedrag"] == whole.model_extra["fedrag"]
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage == whole.usage


def test_the_last_user_message_is_the_question_whatever_stands_around_it(client: openai.OpenAI):
    messages = [
        {"role": "system", "content": "Answer in verse."},
        {"role": "user", "content": "Where is it?"},
        {"role": "assistant", "content": "There."},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    reply = client.chat.completions.create(model="tiny-1", messages=messages, temperature=1.5, max_tokens=1)
    assert reply.choices[0].message.content == ask(client, QUESTION).choices[0].message.content


def test_a_question_that_is_too_long_is_cut_and_that_is_told(client: openai.OpenAI):
    assert ask(client, "Why? " * 100).model_extra["fedrag"]["unread_tokens"] == 470
    assert ask(client, "Why?").model_extra["fedrag"]["unread_tokens"] == 0


@pytest.mark.parametrize("form", ["float", openai.omit], ids=["as numbers", "as bytes, which the client decodes"])
def test_embeddings_are_those_of_a_search(client: openai.OpenAI, run: RunFolder, form):
    retriever = RoundModels(run.config, run.load_result()).retriever
    texts = [QUESTION, "A late book costs two coins a week."]
    for side, encode in (("query", retriever.encode_queries), ("passage", retriever.encode_passages)):
        made = client.embeddings.create(
            model="fedrag", input=texts, encoding_format=form, extra_body={"input_type": side}
        )
        np.testing.assert_array_equal(np.float32([one.embedding for one in made.data]), [encode([t])[0] for t in texts])
    [only] = client.embeddings.create(model="fedrag", input=QUESTION).data
    np.testing.assert_array_equal(np.float32(only.embedding), retriever.encode_queries([QUESTION])[0])


WRONG = [
    ({"messages": []}, "messages: expected at least one with the role 'user', which is the question"),
    ({"messages": [{"role": "user", "content": "  "}]}, "messages: the question is empty; expected some words"),
    ({"messages": "Why?"}, "messages: expected a list of messages"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages: the content of the last user message is no text",
    ),
    ({"n": 2}, "n: expected 1; there is one answer, the likeliest"),
    ({"tools": [{}]}, "tools: is not supported; this service answers questions from its passages"),
    ({"response_format": {"type": "json_object"}}, 'response_format: expected {"type": "text"}'),
    ({"stream": "yes"}, "stream: expected true or false"),
    ({"model": None}, "model: missing; expected a text"),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG, ids=[sentence for _, sentence in WRONG])
def test_a_bad_request_is_told_in_one_sentence(client: openai.OpenAI, change: dict, sentence: str):
    body = {"model": "fedrag", "messages": [{"role": "user", "content": QUESTION}]} | change
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=body, cast_to=object)
    assert caught.value.body["message"] == sentence
    assert caught.value.body["type"] == "invalid_request_error"
    assert caught.value.body["param"] == next(iter(change))
