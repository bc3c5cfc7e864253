"""The table of threats is the list of tests, no more and no less."""

from __future__ import annotations

from threats import ROOT, files_in_table, threats


def test_every_row_names_tests_that_exist_and_no_row_stands_twice() -> None:
    rows = threats()
    assert len(rows) > 20
    assert not [row.attack for row in rows if not row.tests]
    assert len({row.attack for row in rows}) == len(rows)
    assert not [file for file in files_in_table() if not (ROOT / file).is_file()]


def test_every_test_of_an_attack_has_a_row() -> None:
    attacks = {*(ROOT / "tests" / "attack").glob("test_*.py"), *(ROOT / "tests" / "deployed").glob("test_*.py")}
    about = {
        "test_threats.py",
        "test_soak.py",
        "test_deployment.py",
        "test_killed_processes.py",
        "test_readme_deployment.py",
        "test_other_models.py",
    }
    about |= {"test_deployed_diagnosis.py", "test_weeks_of_service.py", "test_deployed_console.py"}
    about |= {"test_deployed_full_disk.py"}
    named = set(files_in_table())
    assert not sorted(
        str(p.relative_to(ROOT)) for p in attacks if p.name not in about and str(p.relative_to(ROOT)) not in named
    )
