"""Sites whose base models are not the coordinator's, as real processes: each is told apart by the part that differs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from deployment import Deployment
from tiny_federation import tiny_config, write_small_sites

from fedrag.site.egress import read_egress

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_home")]

GENERATOR, RETRIEVER = "fedrag--tiny-causal", "fedrag--tiny-encoder"
TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def swap_two_words(models: Path) -> None:
    file = models / GENERATOR / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    words = tokenizer["model"]["vocab"]
    words["A"], words["B"] = words["B"], words["A"]
    file.write_text(json.dumps(tokenizer))


def change_template(models: Path) -> None:
    (models / GENERATOR / "chat_template.jinja").write_text(TEMPLATE)


def change_the_rest(models: Path) -> None:
    swap_two_words(models)
    edit(models / GENERATOR / "config.json", rms_norm_eps=1e-5)
    edit(models / RETRIEVER / "config_sentence_transformers.json", prompts={"query": "query: "})


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "template": (change_template, "the chat template of its generator differs"),
    "rest": (
        change_the_rest,
        "the prompts of its retriever and the tokenizer and the configuration of its generator differ",
    ),
}


def test_a_site_with_another_template_tokenizer_configuration_or_prompts_takes_no_part(tiny_home, tmp_path):
    """Until now only the tensors were compared: such a site trained with the others unnoticed."""
    homes = {name: tmp_path / "homes" / name for name in CHANGES}
    for name, (change, _) in CHANGES.items():
        shutil.copytree(tiny_home / "models", homes[name] / "models")
        change(homes[name] / "models")
    data = write_small_sites(tmp_path / "data", **dict.fromkeys(("same", *CHANGES), 4))
    settings = {"rounds": 1, "min_sites": 1, "greeting_timeout_s": 180.0, "deadline_s": 120.0}
    with Deployment(tmp_path / "d", {name: data / name for name in ("same", *CHANGES)}, homes) as deployment:
        run = deployment.wait_until_done(deployment.begin(tiny_config(data, federation=settings)))
        assert [sorted(line["sites"]) for line in run.rounds()] == [["same"]]
        for name, (_, told) in CHANGES.items():
            assert f"{name} takes no part: {told} from the server's; fetch the same files of" in deployment.executor_log
            assert "train" not in [line["kind"] for line in read_egress(deployment.root / name / "egress.jsonl")]
            assert TEMPLATE[:10] not in (deployment.root / name / "egress.jsonl").read_text()
