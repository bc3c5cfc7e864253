"""The frame of a prompt: what chat templates of every make put around passages and question."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoTokenizer

from fedrag.config.rag_settings import RagConfig
from fedrag.config.values import LABEL_LANGUAGES
from fedrag.errors import ModelError
from fedrag.rag.chat_frame import Frame, frame_of
from fedrag.rag.prompt import PromptBuilder
from fedrag.weights.store import find_model

EACH = "{% for m in messages %}"
END = "{% endfor %}"
ASK = "{% if add_generation_prompt %}<assistant>{% endif %}"
USUAL = EACH + "<{{ m['role'] }}>{{ m['content'] }}" + END + ASK


def tokenizer_with(template: Any) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(find_model("fedrag/tiny-causal").folder)
    tokenizer.chat_template = template
    return tokenizer


def frame_with(template: Any, **rag: Any) -> Frame:
    return frame_of(tokenizer_with(template), RagConfig(**{"instruction": "Be brief.", **rag}))


def prompt_with(template: str, **rag: Any) -> str:
    tokenizer = tokenizer_with(template)
    builder = PromptBuilder(tokenizer, RagConfig(**{"instruction": "Be brief.", **rag}), seq2seq=False)
    return str(tokenizer.decode(builder.example("Who?", ["one"]).prompt))


ASKED = "Passage: one\n\nQuestion: Who?"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (USUAL, f"<system>Be brief.<user>{ASKED}<assistant>"),
        # the system role is left out, refused, or stands where it says nothing any more
        (
            EACH + "{% if m['role'] != 'system' %}<{{ m['role'] }}>{{ m['content'] }}{% endif %}" + END + ASK,
            f"<user>Be brief.\n\n{ASKED}<assistant>",
        ),
        (
            EACH + "{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
            "<{{ m['role'] }}>{{ m['content'] }}" + END + ASK,
            f"<user>Be brief.\n\n{ASKED}<assistant>",
        ),
        ("<user>{{ messages[-1]['content'] }}" + ASK, f"<user>Be brief.\n\n{ASKED}<assistant>"),
        (
            "{% for m in messages | reverse %}<{{ m['role'] }}>{{ m['content'] }}" + END + ASK,
            f"<user>Be brief.\n\n{ASKED}<assistant>",
        ),
        # a list of parts
        (
            EACH + "<{{ m['role'] }}>{% for part in m['content'] %}{{ part['text'] }}{% endfor %}" + END + ASK,
            f"<system>Be brief.<user>{ASKED}<assistant>",
        ),
        (
            EACH + "<{{ m['role'] }}>{{ m['content'][0]['text'] }}" + END + ASK,
            f"<system>Be brief.<user>{ASKED}<assistant>",
        ),
        (
            EACH + "{% if m['role'] == 'system' %}<system>{{ m['content'] + '' }}"
            "{% else %}<user>{{ m['content'][0]['text'] }}{% endif %}" + END + ASK,
            f"<system>Be brief.<user>{ASKED}<assistant>",
        ),
        # what a template changes in texts stays unchanged
        (EACH + "<{{ m['role'] }}>{{ m['content'] | trim }}" + END + ASK, f"<system>Be brief.<user>{ASKED}<assistant>"),
        (
            EACH + "<{{ m['role'] }}>{{ m['content'] | lower }}" + END + ASK,
            f"<system>Be brief.<user>{ASKED}<assistant>",
        ),
        (
            EACH + "<{{ m['role'] }}>{{ m['content'] | upper }}" + END + ASK,
            f"<system>Be brief.<user>{ASKED}<assistant>",
        ),
        (
            EACH + "<{{ m['role'] }}>{{ m['content'] | tojson }}" + END + ASK,
            f'<system>"Be brief."<user>"{ASKED}"<assistant>',
        ),
        (EACH + "<{{ m['role'] }}>{{ m['content'] | e }}" + END + ASK, f"<system>Be brief.<user>{ASKED}<assistant>"),
        (EACH + "<{{ m['role'] }}>{{ m['content'][:60] }}" + END + ASK, f"<system>Be brief.<user>{ASKED}<assistant>"),
        # the answer's place
        (EACH + "<{{ m['role'] }}>{{ m['content'] }}" + END, f"<system>Be brief.<user>{ASKED}<assistant>"),
        (
            EACH + "<{{ m['role'] }}>{% if m['role'] == 'assistant' %}[final]{% endif %}{{ m['content'] }}" + END + ASK,
            f"<system>Be brief.<user>{ASKED}<assistant>[final]",
        ),
        (USUAL.replace("<assistant>", "<assistant>\n"), f"<system>Be brief.<user>{ASKED}<assistant>\n"),
    ],
)
@pytest.mark.usefixtures("tiny_home")
def test_instruction_passages_and_question_stand_before_the_answer_in_every_template(template, expected):
    assert prompt_with(template) == expected


@pytest.mark.parametrize(
    ("ask", "tail"),
    [
        # switches of several families, each on unless told otherwise
        ("{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}", "_"),
        ("{% if thinking is not defined or thinking %}<think>{% else %}</think>{% endif %}", "</think>"),
        ("{% if reasoning | default(true) %}<thought>{% endif %}", ""),
        # none: the thought that is open is closed at once
        ("<think>\n", "<think>\n\n</think>\n\n"),
        ("[THINK]", "[THINK]\n\n[/THINK]\n\n"),
    ],
)
@pytest.mark.usefixtures("tiny_home")
def test_a_template_that_thinks_is_rendered_without_a_thought(ask, tail):
    template = EACH + "<{{ m['role'] }}>{{ m['content'] }}" + END + "{% if add_generation_prompt %}<assistant>"
    frame = frame_with(template + ask + "{% endif %}")
    assert frame.tail == "<assistant>" + ("<think>\n\n</think>\n\n" if tail == "_" else tail)


@pytest.mark.usefixtures("tiny_home")
def test_a_switch_in_the_instruction_reaches_the_template():
    template = "{% set quiet = '/no_think' in messages[0]['content'] %}" + USUAL + "{% if quiet %}<quiet>{% endif %}"
    assert frame_with(template, instruction="Be brief. /no_think").tail == "<assistant><quiet>"


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("%d %b %Y", "09 Mar 2026"),
        ("%B %d, %Y", "March 09, 2026"),
        ("%Y-%m-%d %H:%M", "2026-03-09 00:00"),
        ("%-d", "9"),
    ],
)
@pytest.mark.usefixtures("tiny_home")
def test_a_template_with_todays_date_shows_that_of_the_run(code, shown):
    template = "{% if strftime_now is defined %}Today: {{ strftime_now('CODE') }}\n{% endif %}" + USUAL
    frame = frame_with(template.replace("CODE", code), date="2026-03-09")
    assert frame.head == f"Today: {shown}\n<system>Be brief.<user>"


@pytest.mark.usefixtures("tiny_home")
def test_the_clock_of_a_template_leaves_the_rest_of_it_as_it_is():
    """The blanks and new lines with which it begins count."""
    rest = "\n  {% if true %}\n a\n  {% endif %}\n" + USUAL
    dated = frame_with("{% macro day() %}{{ strftime_now('%d') }}{% endmacro %}" + rest, date="2026-03-09")
    assert dated == frame_with("{% macro day() %}{% endmacro %}" + rest)
    begins = frame_with("\n  {% if true %}\n a\n  {% endif %}\n{{ strftime_now('%d') }}" + USUAL, date="2026-03-09")
    assert begins == frame_with("\n  {% if true %}\n a\n  {% endif %}\n09" + USUAL)


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{% for m in messages %}", "it fails"),
        ("{{ raise_exception('no chats here') }}", r"it fails \(no chats here\)"),
        ("{{ messages.nothing.here }}", "it fails"),
        ("Hello." + ASK, "leaves out the user's message"),
        (EACH + "{{ m['content'] | length }}" + END, "leaves out the user's message"),
        (USUAL + EACH + "{{ m['content'] }}" + END, "several times"),
        ({"tool_use": USUAL}, "it fails"),
    ],
)
@pytest.mark.usefixtures("tiny_home")
def test_a_template_that_cannot_show_a_prompt_is_refused_in_one_sentence(template, fault):
    with pytest.raises(ModelError, match=f"^its chat template cannot show a prompt: .*{fault}") as caught:
        frame_with(template)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("tiny_home")
def test_labels_and_instruction_have_the_language_that_the_scenario_chooses():
    plain = tokenizer_with(None)

    def prompt(**rag: Any) -> str:
        builder = PromptBuilder(plain, RagConfig(**rag), seq2seq=False)
        return str(plain.decode(builder.example("Q", ["P"]).prompt))

    assert prompt(labels="zh") == "请根据段落回答问题。只写最短的答案，并逐字照抄。\n\n段落：P\n\n问题：Q\n答案："
    assert prompt(labels="vi") == (
        "Trả lời câu hỏi dựa vào các đoạn văn. Chỉ viết câu trả lời ngắn nhất, chép đúng từng chữ.\n\n"
        "Đoạn văn: P\n\nCâu hỏi: Q\nTrả lời:"
    )
    assert prompt(labels=("Kontext", "Frage", "Antwort"), instruction="Kurz.") == (
        "Kurz.\n\nKontext: P\n\nFrage: Q\nAntwort:"
    )
    english = "Answer the question from the passages. Reply with the shortest answer, copied word for word."
    assert sorted(LABEL_LANGUAGES) == ["en", "vi", "zh"]
    assert prompt() == f"{english}\n\nPassage: P\n\nQuestion: Q\nAnswer:"


@pytest.mark.usefixtures("tiny_home")
def test_an_instruction_that_a_template_happens_to_say_itself_is_still_given():
    own = "<system>You are a helpful assistant."
    template = own + EACH + "{% if m['role'] == 'user' %}<user>{{ m['content'] }}{% endif %}" + END + ASK
    assert prompt_with(template, instruction="helpful") == f"{own}<user>helpful\n\n{ASKED}<assistant>"


@pytest.mark.usefixtures("tiny_home")
def test_an_instruction_may_be_empty():
    assert prompt_with(USUAL, instruction="") == f"<system><user>{ASKED}<assistant>"
