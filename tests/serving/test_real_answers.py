"""The service of the real small models, asked by the client of OpenAI."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from served_site import copied_site, serving

from fedrag.data.site_folder import load_site
from fedrag.evaluation.ask import BeforeAndAfter
from fedrag.serving.sources import open_served, standard_config

AT_ONCE = 6


@pytest.mark.slow
@pytest.mark.usefixtures("real_models")
def test_questions_asked_at_once_get_the_answers_of_ask_whole_and_as_a_stream(tmp_path: Path):
    data = copied_site(tmp_path)
    site = load_site(data)
    questions = [question.question for question in site.questions][:AT_ONCE]
    both = BeforeAndAfter("none", standard_config(data).on_its_day(), {}, site)
    right = [both.ask(question).trained for question in questions]
    served = open_served(None, data)
    with serving(data, data, current=lambda: served) as service:
        client = openai.OpenAI(base_url=service.api, api_key="none", max_retries=0)

        def ask(question: str, **options):
            messages = [{"role": "user", "content": question}]
            return client.chat.completions.create(model="fedrag", messages=messages, **options)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            replies = list(pool.map(ask, questions))
        pieces = [chunk.choices[0].delta.content or "" for chunk in ask(questions[0], stream=True)]
    assert [reply.choices[0].message.content for reply in replies] == [asked.answer for asked in right]
    found = [[one["id"] for one in reply.model_extra["fedrag"]["passages"]] for reply in replies]
    assert found == [[one.passage.id for one in asked.found] for asked in right]
    assert "".join(pieces) == right[0].answer
    assert len([piece for piece in pieces if piece]) > 3
