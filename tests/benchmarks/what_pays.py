"""What holds a federated retriever back: one change at a time, each a short run, measured on the same new sites.

    fedrag data import squad dev.json data/policyqa-dev --site-by title --split 0.7/0.3/0
    python tests/benchmarks/what_pays.py data/policyqa-dev [--tries "plain,server momentum"] [--out build/what-pays]

Three websites train the side of the questions, so that passages are encoded once for all runs. The validation questions
of seven others are measured: no website trains on their texts, and their passages are new as well. Each line is
compared with the plain one, with a 95 % interval over questions. A run that is there is read, so lines can be made one
after the other, in any order.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from trained_runs import print_table, some_of, trained_run

from fedrag.data.site_folder import load_sites
from fedrag.data.writing import write_sites
from fedrag.evaluation.compare import Comparison, compare_scores
from fedrag.evaluation.records import read_measured, scores_by_question
from fedrag.runs.run_folder import RunFolder
from fedrag.training.losses import ContrastiveLoss, Losses, contrastive_loss
from fedrag.types import Question, Site

ROOT = Path(__file__).parents[2]
TRAINED = ("style.com", "washingtonian.com", "yahoo.com")
MEASURED = (
    *("adweek.com", "buffalowildwings.com", "cariboucoffee.com", "mlb.mlb.com", "post-gazette.com", "ted.com"),
    "theatlantic.com",
)
SHARED = ("internetbrands.com", "kaleidahealth.org", "ticketmaster.com")
"""Stand for a corpus that all sites hold and none keeps to itself: they train nothing and are not measured."""
PLAIN = (
    f"data.only={json.dumps([*TRAINED, *MEASURED])}",
    f"data.hold_out={json.dumps(MEASURED)}",
    *("evaluation.sites=held-out", "evaluation.split=validation", "federation.rounds=3", "retriever.train_tokens=64"),
    *("retriever.contrastive.side=query", "simulation.threads=1"),
)
TRIES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "batches of 32": ("retriever.batch_size=32", 'evaluation.baselines=["pooled"]'),
    "one hard negative": ("retriever.contrastive.hard_negatives=1",),
    "three hard negatives": ("retriever.contrastive.hard_negatives=3",),
    "three shared negatives": ("retriever.contrastive.hard_negatives=3",),
    "LSR beside it": ("retriever.loss=both", "retriever.lsr.candidates=8"),
    "LSR beside it by rank": ("retriever.loss=both", "retriever.lsr.candidates=8", "retriever.lsr.target=rank"),
    "warm-up over a fifth": ("retriever.warmup=0.2",),
    "cosine": ("retriever.schedule=cosine",),
    "constant rate": ("retriever.schedule=constant",),
    "server momentum": ("federation.server_optimizer=momentum", "federation.server.momentum=0.5"),
    "one round of three epochs": ("federation.rounds=1", "retriever.epochs=3"),
    "scale 10": ("retriever.contrastive.scale=10",),
    "scale 50": ("retriever.contrastive.scale=50",),
    "learned scale": (),
}
METRICS = ("recall_at_1", "mrr")


def learned_scale(rate: float = 0.02, most: float = 10.0) -> ContrastiveLoss:
    """Return a contrastive loss whose scale learns (CLIP, Radford et al. 2021): times exp(t), with Adam on t.

    One t serves all sites in turn, which no federation could have: what it brings is more than one could get.
    """
    t = torch.zeros((), requires_grad=True)
    adam = torch.optim.Adam([t], lr=rate)

    def loss(logits: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
        scaled = logits * float(t.detach().exp())

        def learn(gradient: torch.Tensor) -> None:
            t.grad = (gradient * scaled.detach()).sum()  # d loss / d t
            adam.step()
            with torch.no_grad():
                t.clamp_(-math.log(most), math.log(most))

        scaled.register_hook(learn)
        return contrastive_loss(scaled, masked)

    return loss


def with_shared_negatives(sites: Path, folder: Path, named: int = 12, seed: int = 0) -> Path:
    """Return a folder of the sites whose training questions name passages of the shared corpus as negatives."""
    if folder.is_dir():
        return folder
    chance, known = random.Random(seed), {site.name: site for site in load_sites(sites)}
    shared = [replace(passage, id=f"{name}/{passage.id}") for name in SHARED for passage in known[name].passages]

    def named_negatives(question: Question) -> Question:
        return replace(question, hard_negative_ids=tuple(one.id for one in chance.sample(shared, named)))

    def with_corpus(site: Site) -> Site:
        return replace(site, passages=(*site.passages, *shared), train=tuple(map(named_negatives, site.train)))

    write_sites(folder, [*(with_corpus(known[name]) for name in TRAINED), *(known[name] for name in MEASURED)])
    return folder


def trained(name: str, sites: Path, out: Path) -> RunFolder:
    """Return the finished run of a try."""
    path = out / name.replace(" ", "-")
    losses = Losses(contrastive=learned_scale()) if name == "learned scale" else Losses()
    if name == "three shared negatives":
        sites = with_shared_negatives(sites, out / "sites-with-shared-negatives")
    settings = [f"data.sites={sites.resolve()}", *PLAIN, *TRIES[name]]
    return trained_run(path, "policyqa", settings, losses)


def lines(names: list[str], sites: Path, out: Path) -> Iterator[str]:
    """Yield the lines of the table as the runs end."""
    yield "| | recall@1 | less plain | MRR | less plain | s |"
    yield "| --- " * 6 + "|"
    plain = trained("plain", sites, out)
    yield _line(plain, plain, "untouched")
    for name in names:
        run = trained(name, sites, out)
        yield _line(plain, run, "federated", name)
        if (run.path / "evaluation" / "pooled.jsonl").is_file():
            yield _line(plain, run, "pooled", f"pooled, {name}")


def _line(plain: RunFolder, run: RunFolder, arm: str, name: str = "") -> str:
    first, second = (
        scores_by_question(read_measured(folder.path / "evaluation" / f"{which}.jsonl"))
        for folder, which in ((plain, "federated"), (run, arm))
    )
    cells = [name or arm]
    for metric in METRICS:
        found = compare_scores(first, second, metric)
        assert found is not None
        cells += [f"{100 * found.second:.1f}", "" if name == "plain" and arm == "federated" else _less(found)]
    seconds = sum(record["seconds"] for record in run.rounds()) if arm == "federated" else 0.0
    return "| " + " | ".join([*cells, f"{seconds:.0f}" if seconds else ""]) + " |"


def _less(found: Comparison) -> str:
    between = found.difference
    return f"{100 * between.mean_difference:+.1f} ({100 * between.low:+.1f} to {100 * between.high:+.1f})"


def main() -> None:
    """Train what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sites", type=Path, help="a folder of sites")
    parser.add_argument("--tries", type=some_of(TRIES), default=[*TRIES], help="lines of the table")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "what-pays", help="the folder of the runs")
    options = parser.parse_args()
    print_table(lines(options.tries, options.sites, options.out))


if __name__ == "__main__":
    main()
