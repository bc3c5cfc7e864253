"""The service: requests a second over HTTP with 1, 8 and 32 clients, in batches and one question at a time.

Each client sends its next question when the answer to the last one is there. The models are the real ones, untouched:
their answers are long, which is the service's worst case. Whether a question's answer is the same however many ask is
counted too; it must be: in bfloat16 decoding is batch-invariant, in float32 an answer that a batch could change is
decoded again alone.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from bench import Row, main
from models import config, sites

from fedrag.data.feedback_store import FeedbackStore
from fedrag.evaluation.answerer import Answerer
from fedrag.service.web import LOOPBACK
from fedrag.serving.answer_service import answer_server
from fedrag.serving.guard import Tokens
from fedrag.serving.model_thread import MOST_TOGETHER, ModelThread, Served

REQUESTS = {1: 4, 8: 16, 32: 64}
"""Requests in all, by the number of clients."""
LEAST_GAIN = 2.0


@contextmanager
def service(served: Served, most_together: int) -> Iterator[str]:
    """Serve models on a free port; give the address for questions."""
    models = ModelThread(lambda: served, most_together)
    listener = socket.create_server((LOOPBACK, 0))
    port = listener.getsockname()[1]
    with TemporaryDirectory() as folder:
        server = answer_server(models, FeedbackStore(Path(folder)), LOOPBACK, port, Tokens(), print)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://{LOOPBACK}:{port}/v1/chat/completions"
        server.should_exit = True
        thread.join()
        models.end()


def ask_all(address: str, questions: Sequence[str], clients: int) -> tuple[float, float, list[str]]:
    """Return the requests a second of some clients, those a second of the processor, and the answers."""
    with httpx.Client(timeout=None, limits=httpx.Limits(max_connections=clients)) as client:

        def ask(question: str) -> str:
            body = {"model": "fedrag", "messages": [{"role": "user", "content": question}]}
            reply = client.post(address, json=body)
            reply.raise_for_status()
            return str(reply.json()["choices"][0]["message"]["content"])

        ask(questions[0])  # what is made at the first use
        with ThreadPoolExecutor(clients) as pool:
            begun, used = time.perf_counter(), time.process_time()
            answers = list(pool.map(ask, questions))
            seconds, busy = time.perf_counter() - begun, time.process_time() - used
            return len(questions) / seconds, len(questions) / busy, answers


def measure() -> list[Row]:
    """Compare batches with one question at a time."""
    site = sites()[0]
    questions = [question.question for question in site.questions]
    served = Served("untouched", Answerer(config(), {}, site))
    few = REQUESTS[1]
    with service(served, 1) as address:
        alone, alone_cpu, right = ask_all(address, questions[:few], few)
    rows, same = [], 0
    with service(served, MOST_TOGETHER) as address:
        for clients, requests in REQUESTS.items():
            rate, rate_cpu, answers = ask_all(address, questions[:requests], clients)
            same += sum(a == b for a, b in zip(answers, right, strict=False))
            figures = {
                "requests_a_second": rate,
                "one_at_a_time_a_second": alone,
                "requests_a_second_of_the_processor": rate_cpu,
                "one_at_a_time_a_second_of_the_processor": alone_cpu,
            }
            target = LEAST_GAIN if clients == max(REQUESTS) else None
            what = f"requests a second, {clients} at once, against one at a time"
            rows.append(Row(what, rate / alone, "x", target, figures=figures))
            print(f"{clients} clients: {figures}", flush=True)
    share = 100 * same / (len(right) * len(REQUESTS))
    rows.append(Row("answers that are the same however many ask", share, "%", 100))
    return rows


if __name__ == "__main__":
    main(measure)
