"""Recogniser packs: a tiny wenet-ctc pack made here goes through every scheme and sherpa-onnx."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_wenet import tones, write_pack

from edgevoice.audio.wav import write_wav
from edgevoice.engines.recogniser import load_recogniser
from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.export import family as families
from edgevoice.export.calibration import Calibration
from edgevoice.export.families import pack_layout, pack_search
from edgevoice.export.families.pack_layout import Part
from edgevoice.export.family import Family, Job, Written
from edgevoice.frames import to_int16
from edgevoice.quant.recipe import by_type
from edgevoice.quant.scheme import SCHEMES
from edgevoice.settings import RecogniserSettings

WENET = families.load("wenet-ctc")
SAID = "abcacb"
KEYS = (
    *("head", "num_blocks", "output_size", "cnn_module_kernel", "right_context"),
    *("subsampling_factor", "vocab_size"),
)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    work, speech = tmp_path / "work", tmp_path / "speech"
    work.mkdir()
    speech.mkdir()
    for text in ("abc", "cab"):
        write_wav(speech / f"{text}.wav", to_int16(tones(text)), 16_000)
    return Job(work, Calibration(speech), threads=1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = write_pack(tmp_path / "source")
    (folder / "manifest.json").unlink()
    (folder / "README").write_text("not part of the pack")
    return folder


def made(folder: Path, how: Callable[[Path], Written]) -> tuple[Path, Written]:
    folder.mkdir()
    return folder, how(folder)


def hears(folder: Path, written: Written) -> str:
    pack_search.describe(folder, "wenet-ctc", written.engine)
    model = load_recogniser(folder, RecogniserSettings(threads=1))
    recogniser = model.open()
    recogniser.accept(tones(SAID))
    text = recogniser.conclude().text
    model.close()
    return text


def quantised(family: Family, reference: Path, out: Path, scheme: str, job: Job) -> Written:
    out.mkdir()
    return family.quantise(reference, SCHEMES[scheme], family.recipe(scheme), out, job)


def test_a_float_pack_comes_out_as_it_went_in(source: Path, tmp_path: Path, job: Job) -> None:
    assert families.recognise(source) == (WENET,)
    facts = WENET.inspect(source)
    assert facts.parameters > 13_000
    assert facts.detail == {"tokens": 5, "quantised already": "no"}
    folder, written = made(tmp_path / "float", lambda out: WENET.convert(source, out, job))
    assert {p.name for p in folder.iterdir()} == {"model.onnx", "tokens.txt"}
    assert (folder / "model.onnx").read_bytes() == (source / "model.onnx").read_bytes()
    assert written.engine == {
        "sample_rate_hz": 16_000,
        "chunk_size": 16,
        "num_left_chunks": 2,
        "subsampling": 2,
    }
    assert hears(folder, written) == SAID


@pytest.mark.parametrize(
    "case",
    [
        ("fp16", "float16", 0.62),
        ("int8", "int8", 0.40),
        ("int8-weights", "int8", 0.42),
        ("int4", "int4", 0.30),
        ("int4-asymmetric", "int4", 0.32),
    ],
)
def test_every_scheme_is_smaller_hears_the_same_and_keeps_the_metadata(
    case: tuple[str, str, float], source: Path, tmp_path: Path, job: Job
) -> None:
    scheme, stored, at_most = case
    out = tmp_path / "out"
    written = quantised(WENET, source, out, scheme, job)
    before, after = source / "model.onnx", out / "model.onnx"
    assert after.stat().st_size / before.stat().st_size < at_most
    assert by_type(written.tensors)[stored] > 6_000
    assert all(choice.name.startswith("model.onnx:") for choice in written.tensors)
    kept = pack_layout.metadata_of(onnx.load(str(before))).items()
    assert kept <= pack_layout.metadata_of(onnx.load(str(after))).items()
    assert hears(out, written) == SAID
    again = tmp_path / "again"
    quantised(WENET, source, again, scheme, job)
    assert (again / "model.onnx").read_bytes() == after.read_bytes()


def test_the_mix_leaves_in_float_what_costs_words(tmp_path: Path, job: Job) -> None:
    spoiled = write_pack(tmp_path / "spoiled", outlier=True)
    (spoiled / "manifest.json").unlink()
    all_in_bytes = quantised(WENET, spoiled, tmp_path / "int8", "int8", job)
    assert hears(tmp_path / "int8", all_in_bytes) != SAID
    written = quantised(WENET, spoiled, tmp_path / "mixed", "int8-mixed", job)
    assert hears(tmp_path / "mixed", written) == SAID
    types = {c.name.removeprefix("model.onnx:"): c.type for c in written.tensors}
    assert types["first"] == types["weights"] == "int8"
    assert types["second_half"] == "float16"
    assert written.notes[0].endswith("words differ from float's")
    assert written.notes[1] == "model layers.1 in float16: 0 of 2 words differ"
    assert not list(job.work.iterdir())


def test_the_mix_of_a_pack_that_int8_does_not_hurt_is_int8(
    source: Path, tmp_path: Path, job: Job
) -> None:
    written = quantised(WENET, source, tmp_path / "mixed", "int8-mixed", job)
    assert written.notes == ("all in int8: 0 of 2 words differ from float's",)
    assert by_type(written.tensors)["int8"] > 12_800


def test_a_pack_in_integers_passes_through_and_cannot_be_anything_else(
    source: Path, tmp_path: Path, job: Job
) -> None:
    done = tmp_path / "done"
    quantised(WENET, source, done, "int8", job)
    (done / "model.onnx").rename(done / "model.int8.onnx")
    assert WENET.inspect(done).detail["quantised already"] == "model"
    converted, written = made(tmp_path / "c", lambda out: WENET.convert(done, out, job))
    assert written.notes == ("model.onnx is in integers already and stays as it is",)
    assert written.scheme == "int8"
    kept = quantised(WENET, converted, tmp_path / "kept", "int8", job)
    assert (kept.notes, kept.scheme) == (("quantised already: kept, checked",), "int8")
    graph = (tmp_path / "kept" / "model.onnx").read_bytes()
    assert graph == (done / "model.int8.onnx").read_bytes()
    with pytest.raises(ArtifactError, match="quantised already, int4 cannot be made of it"):
        quantised(WENET, converted, tmp_path / "no", "int4", job)


def test_the_float_file_is_taken_where_both_are_there(source: Path, tmp_path: Path) -> None:
    shutil.copy(source / "model.onnx", source / "model.int8.onnx")
    layout = pack_layout.Layout((Part("model"),), scores="model")
    assert pack_layout.files(source, layout)["model"].name == "model.onnx"


def edit(source: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(str(source / "model.onnx"))
    change(model)
    onnx.save(model, str(source / "model.onnx"))


def drop(model: onnx.ModelProto, *keys: str) -> None:
    kept = {k: v for k, v in pack_layout.metadata_of(model).items() if k not in keys}
    onnx.helper.set_model_props(model, kept)


def spoil(model: onnx.ModelProto) -> None:
    weight = next(t for t in model.graph.initializer if t.name == "first")
    values = onnx.numpy_helper.to_array(weight).copy()
    values[3, 3] = np.nan
    weight.CopyFrom(onnx.numpy_helper.from_array(values, "first"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: edit(s, lambda m: drop(m, "head", "num_blocks")), "lacks head, num_blocks, and"),
        (
            lambda s: edit(s, lambda m: onnx.helper.set_model_props(m, dict.fromkeys(KEYS, "x"))),
            "metadata that is no number: head = 'x'",
        ),
        (lambda s: (s / "tokens.txt").unlink(), "has no tokens.txt"),
        (
            lambda s: (s / "tokens.txt").write_text("<blk> 0\na 1\nb 2\n"),
            "5 scores .* 3 tokens",
        ),
        (lambda s: (s / "tokens.txt").write_text("<blk> 0\na 2\n"), "count from 0 without a gap"),
        (lambda s: (s / "tokens.txt").write_text("<blk>: zero\n"), "line 1: .* 'symbol number'"),
        (lambda s: (s / "tokens.txt").write_text("x 0\n"), "no token is the blank"),
        (lambda s: (s / "model.onnx").write_bytes(b"\x08\x08cut"), "not a whole ONNX model"),
        (lambda s: (s / "model.onnx").unlink(), "0 files of a graph, one is needed"),
        (lambda s: edit(s, spoil), "weight 'first' has 1 of 6400 values that are NaN"),
    ],
)
def test_what_sherpa_onnx_would_end_the_process_on_is_one_line(
    damage: Callable[[Path], object], message: str, source: Path, tmp_path: Path, job: Job
) -> None:
    damage(source)
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match=message) as raised:
        WENET.convert(source, tmp_path / "out", job)
    assert "\n" not in str(raised.value)


def test_an_option_stands_in_for_the_metadata(source: Path, tmp_path: Path, job: Job) -> None:
    edit(source, lambda m: drop(m, "chunk_size", "left_chunks"))
    given = {"chunk_size": "16", "num_left_chunks": "2"}
    said = Job(job.work, job.calibration, options=given)
    _, written = made(tmp_path / "out", lambda out: WENET.convert(source, out, said))
    assert written.engine["chunk_size"] == 16
    wrong = Job(job.work, job.calibration, options={"chunk_size": "many"})
    with pytest.raises(ConfigError, match="chunk_size=many: a whole number is needed"):
        made(tmp_path / "no", lambda out: WENET.convert(source, out, wrong))


@pytest.mark.parametrize("name", sorted(families.MODULES))
def test_every_family_loads_and_is_whole(name: str) -> None:
    family = families.load(name)
    assert family.name == name
    assert family.default_scheme in family.schemes
    assert set(family.schemes) <= set(SCHEMES)
    assert set(family.recipes) <= set(family.schemes)
    assert not family.recognises(Path("/nowhere"))
