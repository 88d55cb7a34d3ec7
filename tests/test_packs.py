"""Artifacts that come with edgevoice itself: from its own folder to the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_wenet import tones, write_pack

from edgevoice import catalogue, cli, config, loading, manifest, packs, settings
from edgevoice.engines.recogniser import load_passes
from edgevoice.engines.two_passes import TwoPassModel
from edgevoice.errors import ConfigError
from edgevoice.load_policy import Step, rules
from edgevoice.settings import RecogniserSettings, Settings
from edgevoice.sources import PackageSource, parse
from edgevoice.store import Store, describe

MOST_MB = 20


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`packs/tones`, as it would lie in the package."""
    monkeypatch.setattr(packs, "ROOT", tmp_path / "packs")
    monkeypatch.setenv("EDGEVOICE_HOME", str(tmp_path / "store"))
    return write_pack(tmp_path / "packs" / "tones", tail_padding_ms=900)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "catalogue.toml"
    path.write_text(
        '[bundles]\ndefault = ["tones"]\n'
        '[artifacts.tones]\npack = true\ndescription = "hears tones"\n'
    )
    return path


@pytest.fixture
def pull(listed: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        code = cli.main(["models", "pull", *arguments, "--catalogue", str(listed)])
        return code, capfd.readouterr().err

    return run


def test_its_manifest_says_what_it_is(pack: Path, listed: Path) -> None:
    entry = catalogue.load(listed).entry("tones")
    known = manifest.read(pack)
    assert (entry.stage, entry.family, entry.licence) == ("recogniser", "wenet-ctc", "Apache-2.0")
    assert entry.verified
    assert {(f.path, f.size, f.sha256) for f in entry.files} == {
        (f.path, f.size, f.sha256) for f in known.files
    }
    assert entry.files[0].sources == (PackageSource("tones", "model.onnx"),)
    assert parse(str(entry.files[0].sources[0])) == entry.files[0].sources[0]


def test_a_pull_copies_it_with_all_that_its_manifest_says(
    pack: Path, pull: Callable[..., tuple[int, str]]
) -> None:
    known = manifest.read(pack)
    assert pull()[0] == 0
    store = Store.default()
    installed = store.manifest("tones")
    assert (installed.engine, installed.source) == (known.engine, known.source)
    assert installed.files == describe(store.path("tones"))
    assert (store.path("tones") / "model.onnx").read_bytes() == (pack / "model.onnx").read_bytes()
    assert installed.checks["fetched"][0]["source"] == "package:tones!model.onnx"
    assert "already installed" in pull()[1]


def test_another_versions_pack_takes_the_place_of_the_installed_one(
    pack: Path, pull: Callable[..., tuple[int, str]]
) -> None:
    pull()
    write_pack(pack, outlier=True)
    code, told = pull()
    assert code == 0
    assert "tones: another edgevoice's, taking this one's" in told
    assert Store.default().manifest("tones").files == manifest.read(pack).files


def test_a_damaged_pack_is_not_installed(pack: Path, pull: Callable[..., tuple[int, str]]) -> None:
    whole = (pack / "model.onnx").read_bytes()
    (pack / "model.onnx").write_bytes(whole[:-1] + b"\0")
    code, told = pull()
    assert code == 2
    assert "model.onnx from package:tones!model.onnx: sha256" in told
    (pack / "model.onnx").unlink()
    code, told = pull()
    assert code == 1
    assert "package:tones!model.onnx: No such file or directory" in told
    assert Store.default().names() == ()


def told_of(listed: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        catalogue.load(listed)
    return str(raised.value)


def test_a_pack_that_is_not_there_or_anothers_is_one_line(pack: Path, listed: Path) -> None:
    path = pack / "manifest.json"
    changed = json.loads(path.read_text()) | {"name": "noises"}
    path.write_text(json.dumps(changed))
    assert "its manifest is 'noises''s" in told_of(listed)
    path.unlink()
    assert "edgevoice has no whole pack 'tones'" in told_of(listed)
    assert "\n" not in told_of(listed)
    listed.write_text('[artifacts.tones]\npack = "tones"\ndescription = ""\n')
    assert "pack = 'tones': must be of type bool" in told_of(listed)


@pytest.mark.parametrize("text", ["package:tones", "package:a!../b", "package:a!/b", "package:!b"])
def test_a_source_that_leads_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write package:PACK!PATH"):
        parse(text)


def test_the_bundles_first_pass_is_found_by_the_recogniser_it_is_for(
    pack: Path,
    pull: Callable[..., tuple[int, str]],
    artifact: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What two lines make of a pack: the first pass of the default bundle."""
    whisper = artifact(RecogniserSettings().model)
    monkeypatch.setattr(settings, "FIRST_PASSES", {whisper.name: "tones"})
    pull()
    chosen = Settings()
    assert chosen.artifacts()["first-pass"] == "tones"
    assert chosen.artifacts()["recogniser"] == whisper.name
    assert chosen.cheaper() == {"recogniser": "tones"}
    folders = {"first-pass": Store.default().path("tones"), "recogniser": whisper}
    model = load_passes(folders, RecogniserSettings(), patient=True)
    assert isinstance(model, TwoPassModel)
    recogniser = model.open()
    recogniser.accept(tones("abc   "))
    partial = recogniser.partial()
    assert partial is not None
    assert (partial.text, partial.heard_by) == ("abc", "first")
    assert recogniser.conclude().heard_by == "second"
    model.close()
    # Under load it listens alone.
    assert Step.RECOGNITION in rules(chosen).steps
    cheaper = loading.cheaper(chosen, Store.default()).recogniser
    assert cheaper is not None
    alone = cheaper()
    recogniser = alone.open()
    recogniser.accept(tones("abc"))
    assert (recogniser.conclude().text, recogniser.conclude().heard_by) == ("abc", "")
    alone.close()


@pytest.mark.parametrize(
    ("assignments", "listening"),
    [
        ([], {"recogniser": "whisper-tiny.en-int8"}),
        (["recogniser.passes=first"], {"recogniser": "whisper-tiny.en-int8"}),
        (
            ["recogniser.first_pass=tones"],
            {"first-pass": "tones", "recogniser": "whisper-tiny.en-int8"},
        ),
        (["recogniser.first_pass=tones", "recogniser.passes=first"], {"recogniser": "tones"}),
        (
            ["recogniser.first_pass=tones", "recogniser.passes=second"],
            {"recogniser": "whisper-tiny.en-int8"},
        ),
    ],
)
def test_which_passes_listen(
    assignments: list[str], listening: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "FIRST_PASSES", {})
    chosen = config.override(Settings(), assignments)
    assert chosen.recogniser.heard_with() == listening


def test_the_packs_of_this_edgevoice_are_whole_small_and_in_the_catalogue() -> None:
    known = catalogue.load()
    assert {e.name for e in known.entries.values() if e.pack} == set(packs.names())
    for name in packs.names():
        folder = packs.ROOT / name
        described: Any = manifest.read(folder)
        assert set(described.files) == set(describe(folder)), name
        assert sum(f.size for f in described.files) <= MOST_MB * 1_000_000, name
        assert (folder / "README.md").is_file(), f"{name} has no model card"
    assert set(settings.FIRST_PASSES.values()) <= set(packs.names())
