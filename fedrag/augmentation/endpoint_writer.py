"""An endpoint that speaks as OpenAI's chat completions writes questions about passages, and answers them."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import httpx

from fedrag.augmentation.house_address import host_and_port
from fedrag.augmentation.question_wording import QuestionWording
from fedrag.config.rag_settings import RagConfig
from fedrag.errors import ServiceError
from fedrag.rag.message import message_text
from fedrag.rag.wording import wording_of

KEY_VARIABLE = "FEDRAG_ENDPOINT_KEY"
"""Environment variable of the key that an endpoint may ask for."""

TIMEOUT_S = 120.0
TRIES = 4
_WAIT_S = 1.0  # before the second try; twice as long before each further one
_PARALLEL = 4  # requests on their way at a time: such servers batch them
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
_QUESTION_TOKENS, _ANSWER_TOKENS = 64, 64


class EndpointWriter:
    """Writes through an endpoint; to be used in a `with` block.

    Nothing but passages, questions and the model's name is sent, straight to the endpoint: no proxy of the environment
    is used, and a redirect is refused, since it could lead out of the house.

    Args:
        url: The endpoint, with or without `/v1` at its end.
        model: The model's name there; "": the first that it lists.
        rag: The prompts of answers.
        wording: The words that ask for a question.
        seed: Chooses among the ways to ask, and is sent on.
        timeout_s: Longest wait for a reply.

    Raises:
        ConfigError: The URL is none.
        ServiceError: It cannot be reached, or does not answer as such an endpoint does.
    """

    at_once = 16
    """Passages that it is given at once."""

    def __init__(
        self,
        url: str,
        model: str,
        rag: RagConfig,
        wording: QuestionWording,
        seed: int,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        host_and_port(url)
        self._url = url.rstrip("/") if "/v1" in url else f"{url.rstrip('/')}/v1"
        key = os.environ.get(KEY_VARIABLE, "")
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout_s,
            follow_redirects=False,
            trust_env=False,
            verify=ssl.create_default_context(),  # with the authorities of the system, a house's own among them
        )
        self._rag, self._wording, self._seed = rag, wording, seed
        try:
            self.model = model or self._first_model()
        except BaseException:
            self._client.close()
            raise
        self.key = f"{self._url}|{self.model}|{wording}|{seed}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def questions(self, passages: Sequence[str]) -> list[str]:
        """Return what the model writes when asked for a question about each passage."""
        around = wording_of(RagConfig(labels=self._wording.labels))
        opening, closing = around.openings[0], around.closing
        texts = [f"{opening}{text}{closing}{self._wording.request(self._seed, text)}" for text in passages]
        return self._complete(self._wording.instruction, texts, _QUESTION_TOKENS)

    def answers(self, questions: Sequence[str], passages: Sequence[str]) -> list[str]:
        """Return the model's answer to each question, from its passage."""
        wording = wording_of(self._rag)
        pairs = zip(questions, passages, strict=True)
        texts = [message_text(wording, question, [passage]) for question, passage in pairs]
        return self._complete(wording.instruction, texts, _ANSWER_TOKENS)

    def _complete(self, instruction: str, texts: Sequence[str], most: int) -> list[str]:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            return list(pool.map(lambda text: self._chat(instruction, text, most), texts))

    def _chat(self, instruction: str, text: str, most: int) -> str:
        reply = self._request(
            "POST",
            "/chat/completions",
            {
                "model": self.model,
                "messages": [{"role": "system", "content": instruction}, {"role": "user", "content": text}],
                "max_tokens": most,
                "temperature": 0,
                "seed": self._seed,
            },
        )
        try:
            return str(reply["choices"][0]["message"]["content"] or "").strip()
        except (KeyError, IndexError, TypeError):
            raise ServiceError(f"{self._url}: its reply holds no message, as that of a chat completion does") from None

    def _first_model(self) -> str:
        reply = self._request("GET", "/models")
        try:
            return str(reply["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise ServiceError(f"{self._url}: lists no model; name one with --model") from None

    def _request(self, method: str, path: str, content: dict[str, Any] | None = None) -> Any:
        """Send a request, again where the fault may pass, and return the JSON of its reply."""
        for number in range(1, TRIES + 1):
            try:
                response = self._client.request(method, f"{self._url}{path}", json=content)
            except httpx.TransportError as error:
                why = f"cannot be reached: {error or type(error).__name__}"
            else:
                if response.is_success:
                    return self._json(response)
                why = self._fault(response)
                if response.status_code not in _TEMPORARY:
                    break
            if number < TRIES:
                time.sleep(_WAIT_S * 2 ** (number - 1))
        raise ServiceError(f"{self._url}: {why}; what was written so far is kept, and the same command goes on")

    def _fault(self, response: httpx.Response) -> str:
        if response.is_redirect:
            return f"redirects to {response.headers.get('location', 'nowhere')}, which is refused; name that address"
        hint = f"; its key is taken from {KEY_VARIABLE}" if response.status_code in (401, 403) else ""
        return f"answers with the status {response.status_code} {response.reason_phrase}{hint}".replace("  ", " ")

    def _json(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError:
            raise ServiceError(f"{self._url}: its reply is no JSON; is this an OpenAI-compatible endpoint?") from None
