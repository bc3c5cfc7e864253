"""Bad input, as a person meets it: one clear sentence, exit code 2, nothing half-written."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.types import SPLITS

TINY = Path(__file__).parents[2] / "simulations" / "data" / "tiny"
SCENARIO = """\
name = "bad"

[data]
sites = "sites"

[models]
generator = "fedrag/tiny-causal"
retriever = "fedrag/tiny-encoder"

[rag]
prompt_tokens = 192
answer_tokens = 8

[federation]
rounds = 1

[evaluation]
split = "none"

[simulation]
threads = 1
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with a scenario and three sites."""
    monkeypatch.setenv("FEDRAG_HOME", str(tiny_home))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TINY, "sites")
    Path("scenario.toml").write_text(SCENARIO, encoding="utf-8")


@pytest.fixture
def own_models(tiny_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a test models that it may damage."""
    shutil.copytree(tiny_home / "models", "home/models", symlinks=True)
    monkeypatch.setenv("FEDRAG_HOME", str(Path("home").absolute()))
    return Path("home/models").absolute()


def fedrag(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def refusal(*arguments: object) -> str:
    """Run a command that must be refused, and return the sentence."""
    result = fedrag(*arguments)
    assert result.exit_code == 2, result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line.removeprefix("Error: ")


def simulation_refusal(*settings: str) -> str:
    """Simulate with some settings; nothing may be said but the sentence, and no run folder may be left."""
    sentence = refusal("simulate", "scenario.toml", *(part for setting in settings for part in ("--set", setting)))
    assert not run_folders()
    return sentence


def run_folders() -> list[str]:
    return sorted(os.listdir("runs")) if Path("runs").exists() else []


def simulated(*settings: str) -> Result:
    result = fedrag("simulate", "scenario.toml", *(part for setting in settings for part in ("--set", setting)))
    assert (result.exit_code, result.stderr) == (0, "")
    return result


@pytest.fixture(scope="module")
def finished_run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a run of two rounds once; tests copy it."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(TINY, folder / "sites")
    (folder / "scenario.toml").write_text(SCENARIO.replace('"sites"', f'"{folder}/sites"'), encoding="utf-8")
    run = folder / "run"
    result = fedrag("simulate", folder / "scenario.toml", "--out", run, "--set", "federation.rounds=2")
    assert result.exit_code == 0, result.output
    return run


@pytest.fixture
def run(finished_run: Path) -> Path:
    shutil.copytree(finished_run, "run")
    return Path("run")


def unfinish(run: Path) -> None:
    """Put a run back to just after its last round."""
    shutil.rmtree(run / "final")
    (run / "results.json").unlink()


# The scenario itself


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("rounds=3", "unknown key rounds (nearest known: federation.rounds)"),
        (
            "federation.learning_rate=1",
            "unknown key federation.learning_rate (nearest known: federation.server.learning_rate)",
        ),
        ("federation.quorom=1", "unknown key federation.quorom (nearest known: federation.quorum)"),
        ("lora.rank=4", "unknown key lora (nearest known: generator.lora)"),
        ("federation.rounds=0", "federation.rounds = 0: must be greater than or equal to 1"),
        ("federation.rounds=three", "federation.rounds = 'three': must be a whole number"),
        ("federation.fraction=1.5", "federation.fraction = 1.5: must be less than or equal to 1"),
        ("generator.learning_rate=nan", "generator.learning_rate = nan: must be a finite number"),
        ("evaluation.generate=maybe", "evaluation.generate = 'maybe': must be true or false"),
        ("data.only=north", 'data.only = \'north\': must be a list such as ["a", "b"]'),
        ("name=My scenario", "name = 'My scenario': must be small letters, digits and hyphens"),
        ("generator.lora=16", "generator.lora = 16: must be a section: [generator.lora]"),
        (
            "federation.schedule=both",
            "federation.schedule = 'both': must be 'generator', 'retriever', 'joint', 'alternate', 'staged' or "
            "'iterate'",
        ),
        ("rag.passages_per_prompt=3", "rag.passages_per_prompt is larger than rag.passages"),
        ("evaluation.sites=held-out", 'evaluation.sites = "held-out" needs names in data.hold_out'),
    ],
)
def test_a_wrong_setting_is_named(setting: str, sentence: str):
    assert simulation_refusal(setting) == f"scenario.toml: {sentence}"


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("federation.rounds", 'expected section.key=value, for example "federation.rounds=3"'),
        ("name.x=1", "name is a value, not a section"),
    ],
)
def test_a_wrong_set_option_is_named(setting: str, sentence: str):
    assert simulation_refusal(setting) == f"--set {setting}: {sentence}"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "name is missing"),
        (b'name = "x"\n', "data.sites is missing"),
        (b'name = "x"\n[dta]\nsites = "sites"\n', "unknown key dta (nearest known: data)"),
        (
            b'name = "x"\ndata.sites = "sites"\nevaluation.language = "Chinese"\n',
            'evaluation.language = \'Chinese\': must be the code of a language such as "vi" or "zh-Hant"',
        ),
        (b'name = "x\n', "not valid TOML: Illegal character '\\n' (at line 1, column 10)"),
        (b'name = "\xff"\n', "not UTF-8 text (byte 9); save it as UTF-8"),
    ],
)
def test_a_damaged_scenario_file_is_named(content: bytes, sentence: str):
    Path("scenario.toml").write_bytes(content)
    assert simulation_refusal() == f"scenario.toml: {sentence}"


def test_a_scenario_file_that_is_not_there_is_named():
    assert (
        refusal("simulate", "none.toml") == "none.toml: no such scenario file; fedrag new DIR writes one to start from"
    )
    assert refusal("simulate", "sites") == "sites: cannot be read: Is a directory"
    assert refusal("simulate") == "expected a scenario file or --resume RUN, one of the two"


# What the scenario needs of its models


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        (
            "models.generator=fedrag/tiny-encoder",
            'models.generator = "fedrag/tiny-encoder" is an encoder, no language model; see: fedrag models list',
        ),
        (
            "models.retriever=fedrag/tiny-causal",
            'models.retriever = "fedrag/tiny-causal" is a language model, no encoder; see: fedrag models list',
        ),
        (
            "generator.lora.targets=['attention']",
            'fedrag/tiny-causal: lora.targets: "attention" is not a linear layer of this model; '
            "it has down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj",
        ),
        (
            "retriever.lora.targets=['q_proj']",
            'fedrag/tiny-encoder: lora.targets: "q_proj" is not a linear layer of this model; '
            "it has dense, key, query, value",
        ),
        (
            "rag.prompt_tokens=2041",
            "rag.prompt_tokens = 2041 and rag.answer_tokens = 8 are more than the 2048 tokens "
            "that fedrag/tiny-causal reads; lower them",
        ),
        (
            "rag.prompt_tokens=1",
            "rag.prompt_tokens = 1 cannot hold the instruction and its surroundings (130 tokens), a question and 2 "
            "passages with 16 tokens or more of each; expected at least 178",
        ),
        (
            "rag.chunk_overlap=62",
            "rag.chunk_overlap = 62: must be smaller than the 62 tokens of a passage that fedrag/tiny-encoder reads",
        ),
        (
            "rag.chunk_tokens=63",
            "rag.chunk_tokens = 63: must be at most the 62 tokens of a passage that fedrag/tiny-encoder reads",
        ),
        (
            "retriever.truncate_dim=33",
            "retriever.truncate_dim = 33: vectors of fedrag/tiny-encoder have 32 dimensions",
        ),
        (
            "retriever.train_tokens=2",
            "retriever.train_tokens = 2: fedrag/tiny-encoder adds 2 special tokens, nothing of a passage would be left",
        ),
        ("models.generator=no/such", "no/such is not among the fetched models; run: fedrag models fetch no/such"),
    ],
)
def test_what_a_model_lacks_is_told_before_anything_runs(setting: str, sentence: str):
    assert simulation_refusal(setting) == sentence


def test_an_adapter_that_acts_from_the_question_on_needs_a_model_that_remembers():
    assert simulation_refusal("models.generator=fedrag/tiny-seq2seq", "generator.adapter_from=question") == (
        'generator.adapter_from = "question" needs a model that keeps the keys and values of all tokens; '
        'fedrag/tiny-seq2seq does not; set "start"'
    )


def test_a_generator_in_4_bits_without_its_library_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest)
    )
    assert simulation_refusal("models.generator_dtype=nf4") == (
        "models.generator_dtype = \"nf4\" needs the library bitsandbytes; run: pip install 'fedrag[4bit]'"
    )


@pytest.mark.skipif(
    not importlib.util.find_spec("bitsandbytes"), reason="needs bitsandbytes: pip install 'fedrag[4bit]'"
)
def test_a_generator_whose_layers_are_no_whole_blocks_of_4_bits_is_refused():
    assert simulation_refusal("models.generator_dtype=nf4") == (
        "fedrag/tiny-causal: a layer of 32 inputs cannot be packed into 4 bits, which takes a multiple of 64; "
        'set models.generator_dtype = "auto"'
    )


def test_a_model_folder_that_is_not_fetched_is_told_with_the_command(tmp_path: Path):
    sentence = simulation_refusal(f"models.generator={tmp_path}")
    assert sentence.endswith(f"is not among the fetched models; run: fedrag models fetch {tmp_path} --source path")


def test_a_tampered_model_is_refused(own_models: Path):
    weights = own_models / "fedrag--tiny-causal" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + b"\x00\x00\x00\x01")
    assert re.fullmatch(
        r"fedrag/tiny-causal is not the model that was fetched: its tensors hash to \w+, expected \w+ \(.*\); "
        r"run: fedrag models fetch fedrag/tiny-causal --force",
        simulation_refusal(),
    )


def test_a_model_without_weights_or_with_damaged_ones_is_refused(own_models: Path):
    folder = own_models / "fedrag--tiny-encoder"
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:1000])
    fetch_again = "; run: fedrag models fetch fedrag/tiny-encoder --force"
    sentence = simulation_refusal()
    assert "model.safetensors: damaged or incomplete" in sentence
    assert sentence.endswith(fetch_again)
    (folder / "model.safetensors").unlink()
    sentence = simulation_refusal()
    assert "holds no weights: expected at least one *.safetensors file" in sentence
    assert sentence.endswith(fetch_again)


def test_a_model_without_tokenizer_is_refused(own_models: Path):
    (own_models / "fedrag--tiny-causal" / "tokenizer.json").unlink()
    sentence = simulation_refusal()
    assert sentence.startswith("fedrag/tiny-causal: cannot be loaded from ")
    assert sentence.endswith("run: fedrag models fetch fedrag/tiny-causal --force")


def test_fetching_a_folder_without_a_model_leaves_nothing(own_models: Path):
    before = sorted(own_models.iterdir())
    assert "not a model folder: it has no config.json" in refusal("models", "fetch", "sites", "--source", "path")
    assert "no such folder" in refusal("models", "fetch", "none", "--source", "path")
    assert sorted(own_models.iterdir()) == before


# What the scenario needs of its sites


def north(name: str) -> Path:
    return Path("sites/north") / name


def cut_off(content: bytes) -> bytes:
    return content[:-30]


def in_latin_1(content: bytes) -> bytes:
    return content.replace(b"ferry", b"f\xe9rry", 1)


def with_a_line_twice(content: bytes) -> bytes:
    return content + content.splitlines(keepends=True)[0]


def without_answers(content: bytes) -> bytes:
    return b'{"id": "q1", "question": "Why?", "answers": []}\n' + content


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cut_off, r"sites/north/train\.jsonl:16: not valid JSON: .*; the file ends here, perhaps cut off"),
        (in_latin_1, r"sites/north/train\.jsonl:\d+: not UTF-8 text \(byte \d+ of the line\)"),
        (with_a_line_twice, r'sites/north/train\.jsonl:17: duplicate id "north-train-1" \(first on line 1\)'),
        (without_answers, r'sites/north/train\.jsonl:1: "answers" must be a non-empty list of strings, unless .*'),
    ],
)
def test_a_damaged_question_file_is_named_with_its_line(damage: Callable[[bytes], bytes], sentence: str):
    north("train.jsonl").write_bytes(damage(north("train.jsonl").read_bytes()))
    assert re.fullmatch(sentence, simulation_refusal())


def test_missing_and_empty_passages_are_named():
    north("passages.jsonl").write_bytes(b"")
    assert simulation_refusal() == "sites/north/passages.jsonl: holds no passage; a site needs at least one"
    north("passages.jsonl").unlink()
    assert simulation_refusal() == (
        'sites/north/passages.jsonl: no such file; a site needs one, a line per passage: {"id": "p1", "text": "..."}'
    )


def test_sites_without_a_question_are_refused_before_training():
    for site in Path("sites").iterdir():
        for name in ("train", "validation", "test"):
            (site / f"{name}.jsonl").unlink(missing_ok=True)
    assert simulation_refusal() == "sites: no site has a training question; they stand in a site's train.jsonl"


def test_a_missing_folder_of_sites_is_named_with_where_it_was_looked_for(tmp_path: Path):
    assert simulation_refusal("data.sites=data/none") == (
        f"data/none: no such folder in {tmp_path}; fedrag data import makes one from other data"
    )
    Path("nothing").mkdir()
    assert simulation_refusal("data.sites=nothing").startswith("nothing: holds no site")


def test_an_unknown_site_is_named_with_the_nearest():
    assert simulation_refusal("data.only=['nort']") == 'sites: no site "nort" (nearest: north)'
    everyone = "['east', 'north', 'south']"
    assert simulation_refusal(f"data.hold_out={everyone}") == (
        "sites: no site is left without the held-out ones; hold fewer out"
    )


def test_a_held_out_site_is_read_before_anything_runs():
    Path("sites/south/test.jsonl").write_text("{")
    settings = ("data.hold_out=['south']", "evaluation.sites=held-out", "evaluation.split=test")
    assert simulation_refusal(*settings).startswith("sites/south/test.jsonl:1: not valid JSON")


def edit_questions(split: str, edit: Callable[[dict[str, object]], dict[str, object] | None]) -> None:
    """Change, or leave out, every question of a split at every site."""
    for path in Path("sites").glob(f"*/{split}.jsonl"):
        rows = [edit(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows if row), encoding="utf-8")


def drop(row: dict[str, object]) -> None:
    return None


def unlabel(row: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in row.items() if key != "passage_ids"}


@pytest.mark.parametrize("loss", ["contrastive", "both"])
def test_a_contrastive_loss_without_any_labelled_passage_is_refused(loss: str):
    edit_questions("train", unlabel)
    assert simulation_refusal(f"retriever.loss={loss}") == (
        f'retriever.loss = "{loss}" learns from labelled passages, but no site in sites has a training question '
        'with passage_ids; "lsr" needs none'
    )


def test_the_best_round_needs_validation_questions():
    edit_questions("validation", unlabel)
    assert simulation_refusal("federation.keep=best") == (
        'federation.keep = "best": no site has labelled validation questions to tell the best retriever by; '
        '"last" needs none'
    )
    edit_questions("validation", drop)
    assert simulation_refusal("federation.keep=best", "federation.schedule=generator") == (
        'federation.keep = "best": no site has validation questions to tell the best generator by; "last" needs none'
    )


def test_an_evaluation_without_questions_is_refused():
    edit_questions("test", drop)
    assert simulation_refusal("evaluation.split=test") == (
        'sites: no site has a test question to measure; evaluation.split = "none" does without'
    )


def test_more_sites_than_can_train_are_refused_at_once():
    north("train.jsonl").write_bytes(b"")
    assert simulation_refusal("federation.min_sites=3") == (
        "federation.min_sites = 3, but 2 of the sites in sites have questions to train on; 2 is the most it can be"
    )
    edit_questions("train", drop)
    assert simulation_refusal() == "sites: no site has a training question; they stand in a site's train.jsonl"


def test_a_dry_run_refuses_what_a_run_would():
    edit_questions("train", unlabel)
    assert refusal("simulate", "scenario.toml", "--dry-run").startswith('retriever.loss = "contrastive" learns from')


def test_a_site_without_training_questions_sits_out_by_name_and_the_run_goes_on():
    north("train.jsonl").unlink()
    result = simulated()
    assert "north sits out: it has no training questions" in result.stdout.splitlines()
    assert "round 1/1: 2 of 2 sites" in result.stdout
    [record] = [json.loads(line) for line in Path("runs/bad-1/rounds.jsonl").read_text().splitlines()]
    assert sorted(record["sites"]) == ["east", "south"]


# Run folders


def test_a_run_folder_that_exists_is_not_touched(run: Path):
    before = sorted(run.rglob("*"))
    sentence = refusal("simulate", "scenario.toml", "--out", run)
    assert sentence == "run: exists already; choose another --out, or go on with --resume run"
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("verb", ["simulate --resume {}", "evaluate {} --data sites", "compare {} {}"])
def test_what_is_no_run_is_named(verb: str):
    for folder in ("none", "sites"):
        assert refusal(*verb.format(folder, folder).split()) == (
            f"{folder}: is no run folder (it has no scenario.toml); fedrag simulate makes runs/<scenario>-<n>"
        )


def test_a_run_of_another_version_is_refused(run: Path):
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**facts, "format": 99}))
    sentence = "run: was written in run format 99, this fedrag reads format 2"
    assert refusal("simulate", "--resume", run) == sentence
    assert refusal("evaluate", run, "--data", "sites") == sentence
    (run / "run.json").write_text(json.dumps(facts))
    scenario = (run / "scenario.toml").read_text()
    (run / "scenario.toml").write_text(f"colour = 1\n{scenario}")
    assert "cannot be read by this version of fedrag: run/scenario.toml: unknown key colour" in refusal(
        "simulate", "--resume", run
    )


def test_a_run_whose_data_changed_is_not_resumed(run: Path, finished_run: Path):
    scenario = (run / "scenario.toml").read_text().replace(str(finished_run.parent / "sites"), "sites")
    (run / "scenario.toml").write_text(scenario)
    with north("train.jsonl").open("a") as file:
        file.write('{"id": "new", "question": "Who?", "answers": ["me"]}\n')
    unfinish(run)
    assert refusal("simulate", "--resume", run) == (
        "run: cannot be resumed, its data changed: north; put it back, or start a new run"
    )


def test_a_half_written_checkpoint_gives_way_to_the_one_before(run: Path):
    expected = (run / "final" / "state.safetensors").read_bytes()
    unfinish(run)
    tensors = run / "checkpoints" / "round-0002" / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:5000])
    result = fedrag("simulate", "--resume", run)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "run/checkpoints/round-0002: damaged, the checkpoint before is used" in result.stdout
    assert "going on after round 1" in result.stdout.splitlines()
    assert (run / "final" / "state.safetensors").read_bytes() == expected


def test_an_unfinished_run_is_not_evaluated(run: Path):
    unfinish(run)
    assert refusal("evaluate", run, "--data", "sites") == (
        "run: is not finished; go on with: fedrag simulate --resume run"
    )


def test_a_damaged_result_is_not_evaluated(run: Path):
    result = run / "final" / "state.safetensors"
    result.write_bytes(result.read_bytes()[:100])
    assert refusal("evaluate", run, "--data", "sites").startswith("run/final/state.safetensors: is damaged: ")


def test_runs_that_measured_nothing_are_not_compared(run: Path):
    assert refusal("compare", run, run) == "run: measured nothing (it is not finished, or its evaluation.split is none)"


def test_sites_without_the_questions_to_measure_are_named(run: Path):
    edit_questions("test", drop)
    assert refusal("evaluate", run, "--data", "sites") == (
        "sites: no site has a question in its test split; choose another with --split"
    )
    assert not Path("result.json").exists()


# Disk


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse to write larger files, as it refuses when the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("size", "file"),
    [(0, "scenario.toml"), (20_000, "checkpoints/round-0000")],
)
def test_no_room_for_a_run_leaves_nothing_of_it(size: int, file: str):
    with files_of_at_most(size):
        sentence = simulation_refusal()
    assert sentence.startswith(f"runs/bad-1/{file}: cannot be written: ")
    assert "File too large" in sentence


def test_a_run_that_no_longer_fits_is_resumed_once_there_is_room():
    settings = ("federation.keep=best", "federation.rounds=2")  # the best doubles a checkpoint, once it is scored
    simulated(*settings)
    with files_of_at_most(200_000):
        result = fedrag("simulate", "scenario.toml", *(part for s in settings for part in ("--set", s)))
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: runs/bad-2/checkpoints/round-0000: cannot be written: ")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout.endswith("go on with: fedrag simulate --resume runs/bad-2\n")
    assert fedrag("simulate", "--resume", "runs/bad-2").exit_code == 0
    states = [Path(f"runs/bad-{number}/final/state.safetensors").read_bytes() for number in (1, 2)]
    assert states[0] == states[1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk with little room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may mount no disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named(small_disk: Path):
    result = fedrag("simulate", "scenario.toml", "--out", small_disk / "run", "--set", "federation.rounds=3")
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert re.fullmatch(r"Error: .*: cannot be written: the disk is full; free some space and resume", line)


def test_a_result_that_cannot_be_written_is_named(run: Path):
    with files_of_at_most(0):
        arguments = ("--data", "sites/north", "--only", "retrieval", "--json", "result.json")
        assert refusal("evaluate", run, *arguments) == "result.json: cannot be written: File too large"
    assert not Path("result.json").exists()


# The machine


@pytest.mark.slow
def test_actors_that_do_not_fit_the_machine_are_refused():
    sentence = simulation_refusal("simulation.grid=ray", "simulation.cpus_per_actor=1000")
    assert re.fullmatch(r"simulation\.actors: 1 with 1000 CPUs and 0 GPUs each do not fit into .*", sentence)


# The process as a whole


def test_the_program_itself_prints_one_line_and_returns_2():
    program = [sys.executable, "-c", "from fedrag.cli.main import main; main()", "simulate", "none.toml"]
    result = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "Error: none.toml: no such scenario file; fedrag new DIR writes one to start from\n"


def test_the_tiny_sites_have_every_split():
    """What these tests take away must have been there."""
    assert all((site / f"{split}.jsonl").stat().st_size for site in TINY.iterdir() for split in SPLITS)
