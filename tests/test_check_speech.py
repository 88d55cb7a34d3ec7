"""The voice's gate on the real voice: what is sound passes, every planted fault is caught."""

import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edgevoice import manifest
from edgevoice.errors import ArtifactError
from edgevoice.export import family as families
from edgevoice.export import gates
from edgevoice.export.checks import sound, speech
from edgevoice.export.families import piper_voice
from edgevoice.frames import Float32
from edgevoice.quant.int8 import round_columns
from edgevoice.stages import Recogniser
from edgevoice.store import Store

VOICE = "piper-en_US-joe-medium-int8"
SENTENCES = (
    "Your next meeting starts in twenty minutes.",
    "Plants need light, water and air to grow.",
)
Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def listener(artifact: Callable[[str], Path]) -> Recogniser:
    artifact(speech.RECOGNISER)
    return speech.listener()


@pytest.fixture(scope="module")
def judged(
    artifact: Callable[[str], Path],
    listener: Recogniser,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[Callable[[Arrays], None], Path | None], tuple[Path, Mapping[str, bool]]]]:
    """Changes a copy of the voice and holds it against the voice: which bounds it meets."""
    whole = tmp_path_factory.mktemp("whole") / VOICE
    shutil.copytree(artifact(VOICE), whole, ignore=shutil.ignore_patterns(piper_voice.HALVES))
    described = manifest.read(whole)
    # In one piece: cutting it again for every fault takes longer than all the rest.
    manifest.write(dataclasses.replace(described, engine={}), whole)
    graph = piper_voice.read(whole)[0].name
    model = onnx.load(str(whole / graph))
    spoken = functools.cache(
        lambda folder: [speech.say(speech.voice(folder, "onnx", 1), s) for s in SENTENCES]
    )

    def judge(
        change: Callable[[Arrays], None], reference: Path | None = None
    ) -> tuple[Path, Mapping[str, bool]]:
        folder = tmp_path_factory.mktemp("voice") / VOICE
        shutil.copytree(whole, folder)
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        arrays = {t.name: numpy_helper.to_array(t).copy() for t in changed.graph.initializer}
        change(arrays)
        for tensor in changed.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
        onnx.save(changed, str(folder / graph))
        said = speech.Said(SENTENCES, spoken(reference or whole), spoken(folder), 22050)
        figures = speech.quality(said, listener)
        all_bounds = gates.bounds_for("speech", families.load("piper").bounds)
        bounds = [b for b in all_bounds if b.figure in figures]
        assert len(bounds) == 6
        return folder, {str(v): v.passed for v in gates.judge(figures, bounds)}

    yield judge


def test_a_voice_that_was_not_changed_passes(judged: Any) -> None:
    verdicts = judged(lambda arrays: None)[1]
    assert all(verdicts.values()), verdicts


@pytest.mark.parametrize(
    "name",
    [
        "enc_p.encoder.ffn_layers.2.conv_1.weight_scale",
        "dec.conv_pre.weight_scale",
        "dec.resblocks.8.convs.1.weight_scale",
    ],
)
def test_a_scale_of_zero_is_caught(judged: Any, name: str) -> None:
    def plant(arrays: Arrays) -> None:
        arrays[name][:] = 0.0

    verdicts = judged(plant)[1]
    assert not all(verdicts.values()), verdicts


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("enc_p.encoder.ffn_layers.0.conv_1.weight", "enc_p.encoder.ffn_layers.5.conv_1.weight"),
        ("dec.resblocks.4.convs.0.weight", "dec.resblocks.4.convs.1.weight"),
    ],
)
def test_two_tensors_that_changed_places_are_caught(judged: Any, one: str, other: str) -> None:
    def plant(arrays: Arrays) -> None:
        for suffix in ("", "_scale"):
            names = one + suffix, other + suffix
            arrays[names[0]], arrays[names[1]] = arrays[names[1]], arrays[names[0]]

    verdicts = judged(plant)[1]
    assert not all(verdicts.values()), verdicts


def test_one_scale_a_tensor_where_each_channel_needs_its_own_is_caught(judged: Any) -> None:
    """Queries times f, keys by f: the same voice, with channels of very different size."""
    factors = np.exp2(np.random.default_rng(0).uniform(-8, 8, 96)).astype(np.float32)
    layers = [f"enc_p.encoder.attn_layers.{i}" for i in range(6)]

    def stretch(arrays: Arrays) -> None:
        for layer in layers:
            for name, factor in (("conv_q", factors), ("conv_k", 1 / factors)):
                both_heads = np.tile(factor, 2)
                arrays[f"{layer}.{name}.weight_scale"] *= both_heads
                arrays[f"{layer}.{name}.bias"] *= both_heads
            arrays[f"{layer}.emb_rel_k"] /= factors

    def one_scale(arrays: Arrays) -> None:
        stretch(arrays)
        for layer in layers:
            for name in ("conv_q", "conv_k"):
                weight = f"{layer}.{name}.weight"
                wide = arrays[weight] * arrays[f"{weight}_scale"]
                arrays[weight], scale = round_columns(wide, per_channel=False)
                arrays[f"{weight}_scale"] = np.full(wide.shape[1], scale[0], np.float32)

    stretched, verdicts = judged(stretch)
    assert all(verdicts.values()), verdicts
    verdicts = judged(one_scale, stretched)[1]
    assert not all(verdicts.values()), verdicts


def test_a_silent_voice_and_one_of_nan_are_caught(listener: Recogniser) -> None:
    rng = np.random.default_rng(0)
    tone = rng.normal(0, 0.1, 22050).astype(np.float32)
    broken: tuple[Float32, ...] = (
        np.zeros(0, np.float32),
        np.zeros(22050, np.float32),
        np.full(22050, np.nan, np.float32),
        np.ones(22050, np.float32),
    )
    for samples in broken:
        said = speech.Said(["One two three."], [tone], [samples], 22050)
        figures = speech.quality(said, listener)
        bounds = [b for b in gates.BOUNDS["speech"] if b.figure in figures]
        assert not all(v.passed for v in gates.judge(figures, bounds))


def test_without_whisper_the_next_step_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "default", classmethod(lambda cls: Store(tmp_path)))
    with pytest.raises(ArtifactError, match=r"edgevoice models pull whisper-tiny\.en-int8"):
        speech.listener()


def test_a_voice_that_no_engine_runs(artifact: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "voice"
    shutil.copytree(artifact(VOICE), folder)
    described = manifest.read(folder)
    manifest.write(dataclasses.replace(described, family="unheard"), folder)
    with pytest.raises(ArtifactError, match="no engine runs"):
        speech.contenders(folder, folder)


def test_a_delay_is_no_difference_and_noise_is() -> None:
    rng = np.random.default_rng(0)
    steps = np.repeat(rng.uniform(200, 3000, 20), 1600)
    tone = (0.2 * np.sin(2 * np.pi * np.cumsum(steps) / 16000)).astype(np.float32)
    late = np.concatenate([tone[:8000], tone[7200:]])
    mels = [sound.log_mel_db(samples, 16000) for samples in (tone, late)]
    other = sound.log_mel_db(rng.normal(0, 0.1, len(tone)).astype(np.float32), 16000)
    assert sound.distance_db(mels[0], mels[0]) == 0.0
    assert sound.distance_db(mels[0], mels[1]) < 2.0 < sound.distance_db(mels[0], other)
