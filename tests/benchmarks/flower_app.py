"""An ordinary Flower app that does what one of our rounds does, and loads its models in every call.

It is written as Flower's own examples of fine-tuning language models are: the client app's train function loads the
models with the libraries' defaults, sets the weights it received, reads its partition, trains, and sends all weights
of the adapter back; the server app is stock FedAvg; Flower's own simulation runs both over Ray actors. Its task is
LM-supervised retrieval: the passages nearest to a question are scored by the language model, and the retriever's LoRA
adapter learns the scores. So both models are needed in every call, as in ours. The models' own processes, the
modules they import and their threads stay from call to call, since Flower keeps its actors. It reads one pair after
the other, as an app does that was not written for speed: a call here has four of them. The language model computes in
the number format that suits the processor, as ours does; the default, bfloat16, would cost three times as much here.

    python tests/benchmarks/flower_app.py SITES ROUNDS OUT.json
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from sentence_transformers import SentenceTransformer
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

RANK, ALPHA, CANDIDATES, BATCH, LEARNING_RATE = 16, 32, 2, 1, 1e-3
TAU_LM, TAU_R = 0.1, 0.05
LAYERS = ["query", "key", "value", "dense"]


def load_retriever(folder: str) -> SentenceTransformer:
    """Return the encoder with a fresh adapter on its linear layers."""
    encoder = SentenceTransformer(folder, device="cpu", local_files_only=True)
    settings = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LAYERS)
    inject_adapter_in_model(settings, encoder[0].auto_model)
    return encoder


def adapter_of(encoder: SentenceTransformer) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors."""
    return get_peft_model_state_dict(encoder[0].auto_model)


def embed(encoder: SentenceTransformer, texts: list[str]) -> torch.Tensor:
    """Return unit vectors (texts, dim) through which gradients flow."""
    features = encoder.tokenize(texts)
    return functional.normalize(encoder(features)["sentence_embedding"], dim=-1)


def answer_score(model: torch.nn.Module, tokenizer: object, question: str, passage: str, answer: str) -> float:
    """Return the mean log-probability of an answer after a passage and the question."""
    chat = [{"role": "user", "content": f"{passage}\n\nQuestion: {question}"}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    ids = torch.tensor([prompt + tokenizer(answer, add_special_tokens=False)["input_ids"]])
    labels = ids.clone()
    labels[0, : len(prompt)] = -100
    with torch.no_grad():
        return -model(input_ids=ids, labels=labels).loss.item()


def make_client(sites: str, retriever: str, generator: str, dtype: torch.dtype) -> ClientApp:
    """Return the client app; client i has the i-th folder of sites."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        encoder = load_retriever(retriever)
        model = AutoModelForCausalLM.from_pretrained(generator, local_files_only=True, dtype=dtype).eval()
        tokenizer = AutoTokenizer.from_pretrained(generator, local_files_only=True)
        set_peft_model_state_dict(encoder[0].auto_model, message.content["arrays"].to_torch_state_dict())
        folder = sorted(Path(sites).iterdir())[int(context.node_config["partition-id"])]
        passages, questions = (
            [json.loads(line) for line in (folder / name).read_text().splitlines()]
            for name in ("passages.jsonl", "train.jsonl")
        )
        texts = [passage["text"] for passage in passages]
        asked = [question["question"] for question in questions]
        with torch.no_grad():
            nearest = (embed(encoder, asked) @ embed(encoder, texts).T).topk(CANDIDATES).indices.tolist()
        scores = torch.tensor(
            [
                [answer_score(model, tokenizer, q["question"], texts[i], q["answers"][0]) for i in chosen]
                for q, chosen in zip(questions, nearest, strict=True)
            ]
        )
        adapter = [p for name, p in encoder.named_parameters() if "lora_" in name]
        optimizer = torch.optim.AdamW(adapter, lr=LEARNING_RATE)
        for start in range(0, len(asked), BATCH):
            rows = range(start, min(start + BATCH, len(asked)))
            queries = embed(encoder, [asked[i] for i in rows])
            found = embed(encoder, [texts[i] for row in rows for i in nearest[row]]).detach()
            similarity = torch.einsum("qd,qkd->qk", queries, found.view(len(rows), CANDIDATES, -1))
            target = functional.softmax(scores[start : start + BATCH] / TAU_LM, dim=-1)
            loss = functional.kl_div(functional.log_softmax(similarity / TAU_R, -1), target, reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        metrics = MetricRecord({"num-examples": len(asked), "loss": loss.item()})
        content = {"arrays": ArrayRecord(adapter_of(encoder)), "metrics": metrics}
        return Message(RecordDict(content), reply_to=message)

    return app


def make_server(rounds: int, retriever: str, out: str) -> ServerApp:
    """Return the server app: FedAvg; it writes the seconds of each round."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        moments: list[float] = []

        def note_time(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            moments.append(time.monotonic())
            return None

        start = ArrayRecord(adapter_of(load_retriever(retriever)))
        FedAvg(fraction_evaluate=0.0).start(grid, start, num_rounds=rounds, evaluate_fn=note_time)
        Path(out).write_text(json.dumps([b - a for a, b in zip(moments, moments[1:], strict=False)]))

    return app


def main(sites: str, rounds: str, out: str) -> None:
    """Run the app with one client a site, on two actors of one CPU each."""
    from fedrag.weights.compute import computing_dtype
    from fedrag.weights.store import find_model

    retriever = str(find_model("sentence-transformers/all-MiniLM-L6-v2").folder)
    generator = str(find_model("HuggingFaceTB/SmolLM2-135M-Instruct").folder)
    run_simulation(
        make_server(int(rounds), retriever, out),
        make_client(sites, retriever, generator, computing_dtype("auto", "cpu")),
        num_supernodes=len(list(Path(sites).iterdir())),
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": 2, "include_dashboard": False, "log_to_driver": False},
        },
    )


if __name__ == "__main__":
    os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", RAY_USAGE_STATS_ENABLED="0")
    main(*sys.argv[1:])
