"""A file in four bits written again in bytes: the same weights, and damage that is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from gguf_files import with_zero_scale, write_float16

from edgevoice import catalogue, manifest
from edgevoice.engines import gguf_file
from edgevoice.errors import ArtifactError, ConfigError, ExportError
from edgevoice.export import prepare as preparing
from edgevoice.export.families import gguf_bytes
from edgevoice.quant import gguf

LAYERS = 2


@pytest.fixture(scope="module")
def bundle(artifact: Callable[[str], Path]) -> Path:
    return artifact("smollm2-135m-instruct-q8_0")


@pytest.fixture(scope="module")
def published(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file like the published one, of two layers."""
    folder = tmp_path_factory.mktemp("published")
    whole = bundle / manifest.read(bundle).file(".gguf").path
    floats = write_float16(whole, folder.with_name("float.gguf"), LAYERS)
    gguf.write(floats, folder / "small.Q4_1.gguf", "Q4_1", 1)
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_the_bundle_was_made_so_and_nothing_else_lies_in_it(bundle: Path) -> None:
    installed = manifest.read(bundle)
    entry = catalogue.load().entry(installed.name)
    assert entry.prepare is not None
    assert (entry.scheme, entry.format) == (installed.scheme, installed.format)
    assert installed.checks["kl_divergence"] <= gguf_bytes.MOST_DIVERGENCE
    (path,) = bundle.glob("*.gguf")
    assert {t.type_name for t in gguf_file.read_header(path).table} == {"F32", "Q8_0"}


def test_every_conversion_of_the_catalogue_is_known() -> None:
    asked = {e.prepare.kind for e in catalogue.load().entries.values() if e.prepare}
    assert asked == set(preparing.CONVERSIONS)


def test_the_same_file_gives_the_same_bytes(published: Path, out: Path, tmp_path: Path) -> None:
    made = preparing.prepare("gguf-bytes", published, out, {})
    assert (made.format, made.scheme) == ("gguf", "q8_0")
    assert 0 < made.checks["kl_divergence"] <= gguf_bytes.MOST_DIVERGENCE
    (source,), (written,) = published.iterdir(), out.iterdir()
    before, after = (gguf_file.read_header(path) for path in (source, written))
    assert {t.type_name for t in after.table} == {"F32", "Q8_0"}
    assert [t.name for t in after.table] == [t.name for t in before.table]
    assert after.metadata["tokenizer.chat_template"] == before.metadata["tokenizer.chat_template"]
    gguf.write(source, tmp_path / "again.gguf", "Q8_0", 1)
    assert (tmp_path / "again.gguf").read_bytes() == written.read_bytes()


def test_what_cannot_be_converted_is_one_line(published: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown option of a GGUF file in bytes 'scheme'"):
        gguf_bytes.prepare(published, out, {"scheme": "q8_0"})
    with pytest.raises(ArtifactError, match=r"has 0 \.gguf files"):
        gguf_bytes.prepare(out, out, {})
    (whole,) = published.iterdir()
    cut = tmp_path / "cut"
    cut.mkdir()
    (cut / whole.name).write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises((ArtifactError, ExportError), match=r"small\.Q4_1\.gguf") as caught:
        gguf_bytes.prepare(cut, out, {})
    assert "\n" not in str(caught.value)
    assert not list(out.iterdir())


def test_damage_on_the_way_is_told(
    published: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = gguf.write

    def losing_a_block(source: Path, target: Path, kind: str, threads: int) -> None:
        write(source, tmp_path / "whole.gguf", kind, threads)
        with_zero_scale(tmp_path / "whole.gguf", target, "token_embd.weight", 40_000)

    monkeypatch.setattr(gguf, "write", losing_a_block)
    with pytest.raises(ArtifactError, match=r"1 of \d+ blocks of token_embd\.weight"):
        gguf_bytes.prepare(published, out, {})


def test_too_coarse_a_copy_is_refused(
    published: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = tmp_path / "coarse.gguf"
    (source,) = published.iterdir()
    floats = write_float16(source, tmp_path / "float.gguf", LAYERS)
    gguf.write(floats, coarse, "Q4_0", 1)
    monkeypatch.setattr(gguf, "write", lambda source, target, *_: shutil.copyfile(coarse, target))
    with pytest.raises(ArtifactError, match=r"in Q8_0 diverges by 0\.\d+ nats per token, at most"):
        gguf_bytes.prepare(published, out, {})
