"""Whether a turn is over, judged from what Whisper's encoder made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from speech import librivox, silence, spoken

from edgevoice.cli import main
from edgevoice.engines import encoder_judge
from edgevoice.engines.encoder_judge import (
    ENDINGS,
    NODS,
    WINDOWS,
    EncoderJudge,
    Hidden,
    features,
)
from edgevoice.engines.recogniser import load_recogniser
from edgevoice.engines.segmented_recogniser import OfflineRecogniserModel
from edgevoice.errors import EXIT_OK, EXIT_USAGE, ArtifactError
from edgevoice.export.calibration import default_sentences
from edgevoice.export.ending.cases import cases
from edgevoice.export.ending.fitting import area, fit
from edgevoice.export.nod import network
from edgevoice.export.nod.moments import moments
from edgevoice.frames import SAMPLE_RATE_HZ, Float32, to_int16
from edgevoice.questions import speak_questions
from edgevoice.settings import RecogniserSettings
from edgevoice.stages import RecogniserModel
from edgevoice.store import Store

ARTIFACT = Callable[[str], Path]
CLIPS = (870, 880, 890, 920, 930)
NODDED = (
    "Mm-hm.", "Uh huh.", "Yeah.", "Right.", "Okay.", "I see.", "Wow.", "Hmm.", "Sure.", "Really?",
    "Yeah, yeah.",
)  # fmt: skip


@pytest.fixture(scope="module")
def whisper(artifact: ARTIFACT) -> RecogniserModel:
    return load_recogniser(artifact("whisper-tiny.en-int8"), RecogniserSettings(threads=1))


def heard(model: RecogniserModel, samples: Float32) -> float | None:
    recogniser = model.open()
    recogniser.accept(np.concatenate((silence(0.3), samples, silence(0.08))))
    return recogniser.conclude().ending


def trimmed(samples: Float32) -> Float32:
    loud = np.flatnonzero(np.abs(samples) > 0.03 * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


@pytest.mark.bundle
def test_readers_sentences_sound_over_at_their_end_and_not_in_their_middle(
    whisper: RecogniserModel,
) -> None:
    for number in CLIPS:
        clip = trimmed(librivox(number))
        middle = clip.size // 2
        window = clip[middle - 3200 : middle + 3200]
        power = np.convolve(np.square(window), np.ones(640), "valid")
        cut = middle - 3200 + int(power.argmin()) + 320
        whole, begun = heard(whisper, clip), heard(whisper, clip[:cut])
        assert whole is not None
        assert begun is not None
        assert whole > begun, number


@pytest.mark.bundle
def test_a_setting_turns_it_off(artifact: ARTIFACT) -> None:
    folder = artifact("whisper-tiny.en-int8")
    model = load_recogniser(folder, RecogniserSettings(judges_endings=False))
    assert heard(model, spoken("What time is it?")) is None


@pytest.mark.bundle
def test_what_comes_with_edgevoice_fits_the_recogniser_of_its_name(
    whisper: RecogniserModel,
) -> None:
    for root in (ENDINGS, NODS):
        judge = encoder_judge.for_artifact(root, "whisper-tiny.en-int8")
        assert judge is not None
        assert isinstance(whisper, OfflineRecogniserModel)
        states = whisper.decoder.decode(silence(1.0)).states
        assert states is not None
        assert states.shape[1] == judge.width
        assert encoder_judge.for_artifact(root, "whisper-tiny") is None
        assert encoder_judge.for_artifact(root, "moonshine-tiny-en-int8") is None


def glanced(model: RecogniserModel, samples: Float32, ms: float) -> float | None:
    recogniser = model.open()
    recogniser.accept(np.concatenate((silence(0.3), trimmed(samples)[: int(ms * 16)])))
    return recogniser.glance().nod


@pytest.mark.bundle
@pytest.mark.parametrize("voice", ["slt", "rms", "awb"])
def test_half_a_second_of_a_nod_is_told_from_that_of_a_sentence(
    whisper: RecogniserModel, voice: str
) -> None:
    nods = [glanced(whisper, spoken(text, voice), 480) for text in ("uh huh.", "mm-hm.", "hmm.")]
    others = [
        glanced(whisper, spoken(text, voice), 480)
        for text in ("The weather will be nice.", "Stop, please.", "Tell me about my brother.")
    ]
    assert None not in (*nods, *others)
    assert float(np.median(nods)) > 0.5 > float(np.median(others))


@pytest.mark.bundle
def test_the_silence_behind_a_nod_is_heard_as_well(whisper: RecogniserModel) -> None:
    recogniser = whisper.open()
    recogniser.accept(np.concatenate((silence(0.3), trimmed(spoken("okay.")))))
    before = recogniser.glance()
    recogniser.accept(silence(0.1))
    behind = recogniser.glance()
    assert behind.text == before.text, "silence holds no more words"
    assert before.nod is not None
    assert behind.nod is not None
    assert behind.nod > before.nod
    assert recogniser.glance().nod == behind.nod


@pytest.mark.bundle
def test_a_setting_turns_the_judge_of_nods_off(artifact: ARTIFACT) -> None:
    model = load_recogniser(artifact("whisper-tiny.en-int8"), RecogniserSettings(judges_nods=False))
    assert glanced(model, spoken("uh huh."), 480) is None


def test_a_recording_is_heard_for_a_third_of_a_second_and_longer() -> None:
    random = np.random.default_rng(4)
    nod = random.normal(0.0, 0.1, SAMPLE_RATE_HZ // 2).astype(np.float32)
    found = list(moments(np.concatenate((silence(0.5), nod, silence(0.5))), random))
    assert [moment_ms for moment_ms, _ in found][:3] == [352.0, 416.0, 480.0]
    assert 5 <= len(found) <= 6  # It is over after 500 ms, and as much silence is heard as 176.
    for moment_ms, samples in found:
        assert abs(samples.size / 16 - 300 - moment_ms) <= 33
    assert not list(moments(np.zeros(0, np.float32), random))
    assert not list(moments(silence(1.0), random))


@pytest.mark.parametrize("end", [0, 1, 5, 40, 200])
def test_windows_without_frames_say_nothing(end: int) -> None:
    states = np.random.default_rng(1).normal(size=(60, 8)).astype(np.float32)
    found = features(states, end)
    assert found.shape == (len(WINDOWS) * 8,)
    assert np.isfinite(found).all()
    assert 0.0 <= EncoderJudge(np.ones(48, np.float32), 0.0).probability(states, end) <= 1.0


def test_a_judge_survives_being_written(tmp_path: Path) -> None:
    judge = EncoderJudge(np.arange(12, dtype=np.float32), -0.5)
    encoder_judge.write(judge, tmp_path / "judge.npz")
    again = encoder_judge.read(tmp_path / "judge.npz")
    assert (again.weights == judge.weights).all()
    assert again.bias == judge.bias
    assert again.width == 2


def test_a_judge_with_a_hidden_layer_survives_being_written(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    layer = Hidden(
        random.normal(size=(12, 3)).astype(np.float32), random.normal(size=3).astype(np.float32)
    )
    judge = EncoderJudge(np.array([1.0, -2.0, 0.5], np.float32), 0.25, layer)
    encoder_judge.write(judge, tmp_path / "judge.npz")
    again = encoder_judge.read(tmp_path / "judge.npz")
    assert again.width == 2
    found = random.normal(size=(5, 12)).astype(np.float32)
    assert again.odds(found) == pytest.approx(judge.odds(found), abs=0.01)
    units = np.maximum(found[0] @ layer.weights + layer.biases, 0.0)
    assert float(judge.odds(found[0])) == pytest.approx(
        float(units @ judge.weights) + 0.25, abs=1e-5
    )


@pytest.mark.parametrize("damage", ["units", "biases", "inputs", "nan"])
def test_a_damaged_hidden_layer_is_refused(tmp_path: Path, damage: str) -> None:
    weights = np.ones((13 if damage == "inputs" else 12, 3), np.float32)
    if damage == "nan":
        weights[5, 1] = np.nan
    layer = Hidden(weights, np.ones(4 if damage == "biases" else 3, np.float32))
    judge = EncoderJudge(np.ones(2 if damage == "units" else 3, np.float32), 0.0, layer)
    encoder_judge.write(judge, tmp_path / "judge.npz")
    with pytest.raises(ArtifactError, match=r"judge\.npz"):
        encoder_judge.read(tmp_path / "judge.npz")


@pytest.mark.parametrize("damage", ["cut", "nan", "shape", "none", "empty"])
def test_a_damaged_judge_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "judge.npz"
    weights = np.ones(13 if damage == "shape" else 12, np.float32)
    if damage == "nan":
        weights[3] = np.nan
    encoder_judge.write(EncoderJudge(weights, 0.0), path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    if damage == "empty":
        path.write_bytes(b"")
    if damage == "none":
        path.unlink()
    with pytest.raises(ArtifactError, match=r"judge\.npz"):
        encoder_judge.read(path)


def test_a_fit_tells_what_can_be_told_and_no_more() -> None:
    random = np.random.default_rng(2)
    whole = random.random(600) < 0.3
    inputs = random.normal(size=(600, 12)).astype(np.float32)
    inputs[:, 4] += 2.0 * whole
    judge = fit(inputs, whole)
    fresh = random.normal(size=(400, 12)).astype(np.float32)
    over = np.arange(400) < 200
    fresh[:, 4] += 2.0 * over
    odds = judge.odds(fresh).astype(np.float64)
    assert 0.88 < area(odds[over], odds[~over]) < 0.95  # 0.921 is what there is to know.
    assert abs(float(np.median(odds))) < 0.6  # Both kinds weigh the same, whatever their number.


def test_a_network_tells_what_is_not_linear_and_the_same_each_time() -> None:
    random = np.random.default_rng(5)
    told = random.normal(size=4000).astype(np.float32)
    inputs = random.normal(size=(4000, 48)).astype(np.float32)
    inputs[:, :24] = told[:, None] + 0.3 * inputs[:, :24]
    far = np.abs(told) > 1.0  # a third of them
    judge = network.fit(inputs[:3000], far[:3000], seed=1)
    known, near = inputs[3000:][far[3000:]], inputs[3000:][~far[3000:]]
    assert area(*(judge.odds(kind).astype(np.float64) for kind in (known, near))) > 0.9
    linear = fit(inputs[:3000], far[:3000])
    assert area(*(linear.odds(kind).astype(np.float64) for kind in (known, near))) < 0.6
    again = network.fit(inputs[:3000], far[:3000], seed=1)
    assert (again.weights == judge.weights).all()


def test_a_recording_gives_its_whole_turn_its_pauses_and_a_cut() -> None:
    random = np.random.default_rng(3)
    tone = random.normal(0.0, 0.1, SAMPLE_RATE_HZ).astype(np.float32)
    recording = np.concatenate((silence(0.2), tone, silence(0.4), tone, silence(0.3)))
    found = list(cases(recording, random))
    assert [case.kind for case in found] == ["whole", "pause", "cut"]
    whole, pause, cut = (case.samples.size / SAMPLE_RATE_HZ for case in found)
    assert 2.7 < whole < 2.9  # 0.3 s of lead, 2.4 s, and 40 to 160 ms of silence
    assert 1.3 < pause < 1.5
    assert 0.3 < cut < whole
    assert all(np.abs(case.samples).max() < 1.0 for case in found)
    assert not list(cases(silence(3.0), random))
    assert not list(cases(tone[:8000], random))


@pytest.mark.bundle
def test_the_exporter_fits_one_and_says_how_well_it_judges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgevoice.audio.wav import write_wav

    speech = tmp_path / "speech"
    speech.mkdir()
    for number, said in enumerate(speak_questions(default_sentences("calibration")[:75])):
        write_wav(speech / f"{number:03d}.wav", said.samples, SAMPLE_RATE_HZ)
    (speech / "torn.wav").write_bytes(b"RIFF")
    out = tmp_path / "made" / "judge.npz"
    ask = ["export", "ending", "whisper-tiny.en-int8", "--speech", str(speech)]
    assert main([*ask, "--out", str(out), "--json"]) == EXIT_OK
    told = capsys.readouterr()
    assert "torn.wav" in told.err
    report = json.loads(told.out)
    assert report == json.loads(out.with_suffix(".json").read_text())
    assert report["cases"]["whole"] >= 60
    assert report["area_whole_cut"] > 0.6
    assert encoder_judge.read(out).width == 384
    assert main([*ask, "--out", str(tmp_path / "judge.bin")]) == EXIT_USAGE
    assert "FILE.npz" in capsys.readouterr().err
    few = tmp_path / "few"
    few.mkdir()
    (speech / "000.wav").rename(few / "000.wav")
    ask[-1] = str(few)
    assert main([*ask, "--out", str(tmp_path / "other.npz")]) == EXIT_USAGE
    assert "at least 60" in capsys.readouterr().err


@pytest.mark.bundle
def test_the_exporter_fits_a_judge_of_nods(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgevoice.audio.wav import write_wav

    others, nods = tmp_path / "others", tmp_path / "nods"
    for folder in (others, nods):
        folder.mkdir()
    for number, said in enumerate(speak_questions(default_sentences("calibration")[:66])):
        write_wav(others / f"{number:03d}.wav", said.samples, SAMPLE_RATE_HZ)
    for number, text in enumerate(NODDED * 7):
        sound = to_int16(spoken(text, ("slt", "rms", "awb")[number % 3]))
        write_wav(nods / f"{number:03d}.wav", sound, SAMPLE_RATE_HZ)
    out = tmp_path / "made" / "judge.npz"
    ask = ["export", "nod", "whisper-tiny.en-int8", "--nods", str(nods), "--out", str(out)]
    assert main([*ask, "--others", str(others), "--json"]) == EXIT_OK
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(out.with_suffix(".json").read_text())
    assert report["recordings"]["others"] == 66
    judge = encoder_judge.read(out)
    model = load_recogniser(Store.default().path("whisper-tiny.en-int8"), RecogniserSettings())
    assert isinstance(model, OfflineRecogniserModel)
    odds = []
    for text in ("Uh huh.", "Where are my keys?"):
        states = model.decoder.decode(trimmed(spoken(text, "kal16"))[:7680]).states
        assert states is not None
        odds.append(judge.probability(states, 24))
    assert odds[0] > odds[1]
    assert main([*ask, "--others", str(others), "--penalty", "0"]) == EXIT_USAGE
    assert "--penalty 0" in capsys.readouterr().err
    few = tmp_path / "few"
    few.mkdir()
    (nods / "000.wav").rename(few / "000.wav")
    assert main([*ask, "--others", str(few)]) == EXIT_USAGE
    assert "--others: 1 recordings" in capsys.readouterr().err
