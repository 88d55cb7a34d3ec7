import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevoice import catalogue, manifest, sources
from edgevoice.errors import ConfigError
from edgevoice.sources import HfSource, PackageSource, PypiSource

ENTRY: dict[str, Any] = {
    "stage": "vad",
    "family": "silero-vad",
    "format": "onnx",
    "scheme": "fp32",
    "licence": "MIT",
    "description": "a model",
    "verified": True,
    "files": [{"path": "a.onnx", "size": 3, "sha256": "0" * 64, "sources": ["file:/a.onnx"]}],
}


def parsed(**changes: Any) -> catalogue.Catalogue:
    entry = copy.deepcopy(ENTRY) | changes
    return catalogue.parse({"artifacts": {"tiny": entry}, "bundles": {"default": ["tiny"]}})


def test_the_default_bundle_is_verified_and_needs_nothing_but_pypi_and_edgevoice() -> None:
    entries = catalogue.load().expand(["default"])
    assert list(dict.fromkeys(e.stage for e in entries)) == [
        "vad",
        "end-of-turn",
        "recogniser",
        "language-model",
        "speech",
    ]
    for entry in entries:
        assert entry.verified
        sources_of = [s for f in entry.files for s in f.sources]
        assert all(isinstance(s, PypiSource | PackageSource) for s in sources_of)


def test_what_was_never_fetched_has_an_address_and_no_hash() -> None:
    known = catalogue.load()
    unverified = [e for e in known.entries.values() if not e.verified]
    assert len(unverified) >= 7
    for entry in unverified:
        assert entry.download_mb > 0
        assert all(f.sha256 is None and f.sources for f in entry.files)


@pytest.mark.bundle
@pytest.mark.parametrize("name", ["silero-vad", "smart-turn-v3.2"])
def test_the_catalogue_says_what_the_installed_files_are(
    name: str, artifact: Callable[[str], Path]
) -> None:
    installed = manifest.read(artifact(name))
    entry = catalogue.load().entry(name)
    assert {(f.path, f.size, f.sha256) for f in entry.files} == {
        (f.path, f.size, f.sha256) for f in installed.files
    }
    assert (entry.stage, entry.family, entry.format, entry.scheme, entry.licence) == (
        installed.stage,
        installed.family,
        installed.format,
        installed.scheme,
        installed.licence,
    )


def test_names_expand_once_each_in_the_order_asked() -> None:
    known = catalogue.load()
    entries = known.expand(["smart-turn-v3.2", "default", "smart-turn-v3.2"])
    assert [e.name for e in entries][:2] == ["smart-turn-v3.2", "silero-vad"]
    assert len(entries) == len(known.bundles["default"])


def test_an_unknown_name_is_answered_with_a_guess() -> None:
    with pytest.raises(ConfigError, match="did you mean 'silero-vad'"):
        catalogue.load().expand(["silero-vda"])
    with pytest.raises(ConfigError, match="unknown artifact 'defualt'"):
        catalogue.load().entry("defualt")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"stagee": "vad"}, "did you mean 'stage'"),
        ({"stage": "ears"}, "unknown stage 'ears'"),
        ({"format": "tflite"}, "unknown format 'tflite'"),
        ({"verified": "yes"}, "must be of type bool"),
        ({"download_mb": True}, "must be of type int"),
        ({"files": []}, "at least one file"),
        ({"files": [{"path": "../a", "sources": ["file:/a"]}]}, "without '..'"),
        ({"files": [{"path": "a", "sources": ["file:/a"]}]}, "needs 'size' and 'sha256'"),
        ({"files": [ENTRY["files"][0] | {"sources": []}]}, "must be a list of sources"),
        ({"files": [{"path": "a"}]}, "'sources' is missing"),
        ({"files": [ENTRY["files"][0] | {"sources": ["ftp://a"]}]}, "unknown scheme 'ftp'"),
        ({"files": [ENTRY["files"][0] | {"sha256": "F" * 64}]}, "64 lower-case hex"),
        ({"files": [ENTRY["files"][0] | {"unpack": {"stripp": 1}}]}, "unknown key 'stripp'"),
        ({"prepare": {"options": {}}}, "'kind' is missing"),
        ({"engine": {"when": float("nan")}}, "only JSON values"),
    ],
)
def test_a_wrong_entry_is_named(changes: dict[str, Any], complaint: str) -> None:
    assert parsed().entry("tiny").files[0].size == 3
    with pytest.raises(ConfigError, match=complaint) as caught:
        parsed(**changes)
    assert "tiny" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"artifacts": {"a b": ENTRY}}, "a name is letters"),
        ({"artifacts": {"a": 3}}, "must be a table"),
        ({"artifacts": {"a": ENTRY}, "bundles": {"a": ["a"]}}, "an artifact has that name"),
        ({"artifacts": {"a": ENTRY}, "bundles": {"b": ["c"]}}, "unknown artifact 'c'"),
        ({"artifacts": {"a": ENTRY}, "bundles": {"b": []}}, "must be a list"),
        ({}, "'artifacts' is missing"),
    ],
)
def test_a_wrong_catalogue_is_named(data: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        catalogue.parse(data)


@pytest.mark.parametrize("content", [b"[artifacts", b"\xff\xfe", None])
def test_a_file_that_is_no_catalogue_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.toml: not a catalogue"):
        catalogue.load(path)


@pytest.mark.parametrize(
    "text",
    [
        "pypi:dist!member",
        "pypi:dist==1.0",
        "hf:name@main!file",
        "hf:org/name!file",
        "url:ftp://host/file",
        "url:/just/a/path",
        "file:relative/path",
        "no colon",
    ],
)
def test_a_wrong_source_says_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match=r"write|unknown scheme"):
        sources.parse(text)


@given(
    word=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True),
    path=st.from_regex(r"[a-z0-9_.-]{1,8}(/[a-z0-9_.!@=-]{1,8}){0,2}", fullmatch=True),
)
def test_sources_read_back_as_they_are_written(word: str, path: str) -> None:
    for source in (
        PypiSource(word, "1.0", path),
        HfSource(f"org/{word}", "main", path),
        sources.UrlSource(f"https://{word}/{path}"),
        sources.FileSource(f"/{path}"),
    ):
        assert sources.parse(str(source)) == source
