"""What the documents say is what the program does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgevoice import catalogue, config
from edgevoice.cli import COMMANDS, build_parser
from edgevoice.export import gates
from edgevoice.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_configuration_document_holds_every_setting() -> None:
    """Renew it with `edgevoice config show --defaults`."""
    block = re.search(r"```toml\n(.*?)```", text("docs/configuration.md"), re.DOTALL)
    assert block is not None
    assert block[1].strip() == config.to_toml(Settings()).strip()


def test_the_readme_names_every_command_and_no_other() -> None:
    named = set(re.findall(r"`edgevoice ([a-z]+)", text("README.md")))
    assert named == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([command, "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_the_export_document_holds_every_bound() -> None:
    """Renew it with `python -m edgevoice.export.gates`."""
    block = re.search(r"<!-- bounds:.*?-->\n(.*?)\n<!-- end", text("docs/export.md"), re.DOTALL)
    assert block is not None
    assert block[1].strip() == gates.table()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_default_models_are_in_the_catalogue_and_the_licence_table() -> None:
    named = set(Settings().artifacts().values())
    bundle = {entry.name for entry in catalogue.load().expand(["default"])}
    assert bundle == named
    for entry in catalogue.load().expand(["default"]):
        assert entry.licence.split("-")[0] in text("docs/licences.md")
