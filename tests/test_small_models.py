"""VAD, end of turn, speaker and wake word: exported, measured, and planted faults are caught."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevoice import manifest
from edgevoice.audio.wav import write_wav
from edgevoice.errors import ArtifactError, ExportError
from edgevoice.export import family as families
from edgevoice.export import gates
from edgevoice.export.calibration import Calibration
from edgevoice.export.checks import costs, end_of_turn, recordings, speaker, vad, wake_word
from edgevoice.export.families.pack_search import describe
from edgevoice.export.families.silero_vad import keep_16_khz
from edgevoice.export.families.wake_word import FILES
from edgevoice.export.family import Family, Job
from edgevoice.frames import to_int16
from edgevoice.manifest import STAGES
from edgevoice.quant.scheme import SCHEMES


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few sentences as somebody's recordings: a measurement of seconds, not minutes."""
    folder = tmp_path_factory.mktemp("material")
    for number, clip in enumerate(Calibration().clips()[:5]):
        write_wav(folder / f"{number}.wav", to_int16(clip.samples), 16_000)
    return folder


@pytest.fixture(autouse=True)
def few_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "PAIRS", 2)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    work = tmp_path / "work"
    work.mkdir()
    return Job(work, Calibration())


def artifact_of(folder: Path, family: Family, engine: dict[str, object] | None = None) -> Path:
    describe(folder, family.artifact_family, engine or {})
    text = (folder / "manifest.json").read_text()
    stage = '"stage": "recogniser"'
    (folder / "manifest.json").write_text(text.replace(stage, f'"stage": "{family.stage}"'))
    return folder


def converted(family: Family, source: Path, folder: Path, job: Job) -> Path:
    folder.mkdir()
    written = family.convert(source, folder, job)
    return artifact_of(folder, family, dict(written.engine))


def quantised(family: Family, reference: Path, scheme: str, job: Job) -> Path:
    out = reference.parent / scheme
    out.mkdir()
    written = family.quantise(reference, SCHEMES[scheme], family.recipe(scheme), out, job)
    assert not list(job.work.iterdir())
    return artifact_of(out, family, dict(written.engine))


def missed(family: Family, figures: gates.Figures) -> set[str]:
    """Bounds of quality that were missed; a busy machine says nothing of speed."""
    verdicts = gates.judge(figures, gates.bounds_for(family.stage, {}))
    return {v.bound.figure for v in verdicts if not v.passed} - {"speed_ratio_low"}


def change(folder: Path, how: Callable[[onnx.ModelProto], object], family: Family) -> None:
    path = folder / "model.onnx"
    model = onnx.load(str(path))
    how(model)
    onnx.save(model, str(path))
    artifact_of(folder, family)


def weights(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [t for t in model.graph.initializer if np.prod(t.dims) > 5_000]


def silence(tensor: onnx.TensorProto) -> None:
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(values), tensor.name))


def swap(first: onnx.TensorProto, second: onnx.TensorProto) -> None:
    one, two = numpy_helper.to_array(first), numpy_helper.to_array(second)
    assert one.shape == two.shape and not np.array_equal(one, two)
    first.CopyFrom(numpy_helper.from_array(two, first.name))
    second.CopyFrom(numpy_helper.from_array(one, second.name))


def test_every_stage_has_bounds() -> None:
    assert set(gates.BOUNDS) == set(STAGES) == set(gates.QUALITY)
    for stage, (figure, _) in gates.QUALITY.items():
        assert figure in {bound.figure for bound in gates.BOUNDS[stage]}


# --- voice activity ------------------------------------------------------------------------------

SILERO = families.load("silero-vad")


@pytest.fixture
def silero(artifact: Callable[[str], Path], tmp_path: Path, job: Job) -> Path:
    return converted(SILERO, artifact("silero-vad"), tmp_path / "reference", job)


def test_the_branch_for_16_khz_is_the_whole_model_bit_for_bit(silero: Path, tmp_path: Path) -> None:
    assert families.recognise(silero / "model.onnx") == (SILERO,)
    model = onnx.load(str(silero / "model.onnx"))
    assert keep_16_khz(model)
    assert not keep_16_khz(model)
    assert model.ByteSize() < 0.6 * (silero / "model.onnx").stat().st_size
    half = tmp_path / "half"
    half.mkdir()
    onnx.save(model, str(half / "model.onnx"))
    import onnxruntime

    sessions = [
        onnxruntime.InferenceSession(str(folder / "model.onnx")) for folder in (silero, half)
    ]
    drawn = np.random.default_rng(0)
    state = np.zeros((2, 1, 128), np.float32)
    for _ in range(5):
        window = drawn.standard_normal((1, 576)).astype(np.float32) * 0.1
        fed = {"input": window, "state": state, "sr": np.array(16_000, np.int64)}
        one, two = (session.run(None, fed) for session in sessions)
        assert all(map(np.array_equal, one, two))
        state = one[1]


def test_a_third_of_silero_judges_alike_and_int8_does_not_pay(
    silero: Path, material: Path, job: Job
) -> None:
    candidate = quantised(SILERO, silero, "fp16", job)
    figures = vad.measure(silero, candidate, material, 1)
    assert not missed(SILERO, figures)
    assert figures["agreement"] > 0.995
    assert figures["size_ratio"] < 0.32
    assert {"speed_ratio", "speed_ratio_low"} <= set(figures)
    in_bytes = quantised(SILERO, silero, "int8", job)
    assert missed(SILERO, vad.measure(silero, in_bytes, material, 1)) == {"agreement"}


@pytest.mark.parametrize(
    "fault",
    [
        lambda m: silence(next(t for t in weights(m) if "encoder.1" in t.name)),
        lambda m: swap(*(t for t in weights(m) if "decoder.rnn" in t.name)),
    ],
    ids=["scale of zero", "swapped tensors"],
)
def test_a_fault_in_the_vad_is_caught(
    fault: Callable[[onnx.ModelProto], None], silero: Path, material: Path, job: Job
) -> None:
    candidate = quantised(SILERO, silero, "fp16", job)
    change(candidate, fault, SILERO)
    assert missed(SILERO, vad.measure(silero, candidate, material, 1)) == {"agreement"}


def test_a_vad_is_not_judged_by_silence(silero: Path, tmp_path: Path) -> None:
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    write_wav(quiet / "nothing.wav", np.zeros(16_000, np.int16), 16_000)
    with pytest.raises(ExportError, match=r"the reference calls 0% of the recordings speech"):
        vad.measure(silero, silero, quiet, 1)


def test_what_is_no_silero_is_refused(artifact: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no silero-vad graph: its inputs are input_features"):
        SILERO.inspect(artifact("smart-turn-v3.2"))
    with pytest.raises(ArtifactError, match=r"0 \.onnx files, one is needed"):
        SILERO.inspect(tmp_path)


# --- end of turn ---------------------------------------------------------------------------------

SMART_TURN = families.load("smart-turn")


@pytest.fixture
def smart_turn(artifact: Callable[[str], Path], tmp_path: Path, job: Job) -> Path:
    return converted(SMART_TURN, artifact("smart-turn-v3.2"), tmp_path / "reference", job)


def test_smart_turn_passes_through(smart_turn: Path, material: Path, job: Job) -> None:
    assert SMART_TURN.inspect(smart_turn).detail["quantised already"] == "model.onnx"
    kept = quantised(SMART_TURN, smart_turn, "int8", job)
    figures = end_of_turn.measure(smart_turn, kept, material, 1)
    assert not missed(SMART_TURN, figures)
    assert (figures["agreement"], figures["probability_difference"]) == (1.0, 0.0)
    assert figures["turns"] == 10
    with pytest.raises(ArtifactError, match="quantised already, fp16 cannot be made of it"):
        quantised(SMART_TURN, smart_turn, "fp16", job)


def scales(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Scales of the largest weights."""
    large = {t.name for t in weights(model) if t.data_type == TensorProto.INT8}
    named = {
        n.input[1]
        for n in model.graph.node
        if n.op_type == "DequantizeLinear" and n.input[0] in large
    }
    return [t for t in model.graph.initializer if t.name in named]


def one_scale(model: onnx.ModelProto) -> None:
    """Per-tensor scales where the weights were rounded per channel."""
    per_channel = [t for t in scales(model) if np.prod(t.dims) > 1]
    assert per_channel
    for tensor in per_channel:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, values.max()), tensor.name))


@pytest.mark.parametrize(
    "fault",
    [
        lambda m: silence(scales(m)[4]),
        lambda m: swap(*[t for t in weights(m) if t.dims == weights(m)[6].dims][:2]),
        one_scale,
    ],
    ids=["scale of zero", "swapped tensors", "one scale per tensor"],
)
def test_a_fault_in_the_end_of_turn_model_is_caught(
    fault: Callable[[onnx.ModelProto], None], smart_turn: Path, material: Path, job: Job
) -> None:
    candidate = quantised(SMART_TURN, smart_turn, "int8", job)
    change(candidate, fault, SMART_TURN)
    figures = end_of_turn.measure(smart_turn, candidate, material, 1)
    assert "agreement" in missed(SMART_TURN, figures), figures


# --- speakers: a tiny WeSpeaker graph that sherpa-onnx loads -------------------------------------

SPEAKER = families.load("speaker-embedding")
WESPEAKER = {
    "framework": "wespeaker",
    "language": "English",
    "output_dim": "192",
    "sample_rate": "16000",
    "normalize_samples": "1",
}


def speaker_graph(metadata: dict[str, str]) -> onnx.ModelProto:
    drawn = np.random.default_rng(0)
    constants = {
        "first": drawn.standard_normal((80, 192)).astype(np.float32) / 9,
        "second": drawn.standard_normal((192, 192)).astype(np.float32) / 14,
    }
    nodes = [
        helper.make_node("MatMul", ["feats", "first"], ["h"], name="/layer1/MatMul"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("ReduceMean", ["r"], ["pooled"], axes=[1], keepdims=0, name="pool"),
        helper.make_node("MatMul", ["pooled", "second"], ["embs"], name="/layer2/MatMul"),
    ]
    graph = helper.make_graph(
        nodes,
        "speaker",
        [helper.make_tensor_value_info("feats", TensorProto.FLOAT, ["N", "T", 80])],
        [helper.make_tensor_value_info("embs", TensorProto.FLOAT, ["N", 192])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata)
    return model


def test_a_speaker_embedding_in_int8_stays_close_and_a_fault_does_not(
    tmp_path: Path, material: Path, job: Job
) -> None:
    source = tmp_path / "campplus.onnx"
    onnx.save(speaker_graph(WESPEAKER), str(source))
    assert families.recognise(source) == (SPEAKER,)
    reference = converted(SPEAKER, source, tmp_path / "reference", job)
    assert manifest.read(reference).engine == {"engine": "sherpa-onnx", "dimensions": 192}
    candidate = quantised(SPEAKER, reference, "int8", job)
    figures = speaker.measure(reference, candidate, material, 1)
    assert not missed(SPEAKER, figures)
    assert 0.98 < figures["cosine"] < 1.0
    assert figures["size_ratio"] < 0.5
    change(candidate, lambda m: silence(weights(m)[0]), SPEAKER)
    assert missed(SPEAKER, speaker.measure(reference, candidate, material, 1)) == {"cosine"}


def test_an_embedding_without_sherpas_metadata_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "speaker.onnx"
    for metadata, message in (
        ({}, "framework '' in its metadata; sherpa-onnx knows wespeaker, 3d-speaker, nemo"),
        ({"framework": "wespeaker", "output_dim": "9"}, "lacks sample_rate, normalize_samples, la"),
    ):
        onnx.save(speaker_graph(metadata), str(source))
        with pytest.raises(ArtifactError, match=message):
            SPEAKER.inspect(source)


# --- wake words: three tiny graphs in openWakeWord's shapes --------------------------------------

WAKE_WORD = families.load("wake-word")


def graph_of(
    nodes: list[onnx.NodeProto], shapes: list[list[object]], constants: dict[str, np.ndarray]
) -> onnx.ModelProto:
    given, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(("x", "y"), shapes, strict=True)
    )
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [given], [result], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def wake_word_source(folder: Path) -> Path:
    folder.mkdir()
    drawn = np.random.default_rng(0)
    t = np.arange(512) / 16_000
    tones = np.stack([np.hanning(512) * np.cos(2 * np.pi * 90 * (n + 1) * t) for n in range(32)])
    node = helper.make_node
    mel = graph_of(
        [
            node("Unsqueeze", ["x", "one"], ["u"]),
            node("Conv", ["u", "tones"], ["c"], strides=[160], name="dft"),
            node("Abs", ["c"], ["a"]),
            node("Clip", ["a", "least", "open"], ["k"]),
            node("Log", ["k"], ["l"]),
            node("Transpose", ["l"], ["t"], perm=[0, 2, 1]),
            node("Unsqueeze", ["t", "one"], ["y"]),
        ],
        [["batch", "samples"], ["batch", 1, "frames", 32]],
        {
            "tones": tones[:, None].astype(np.float32),
            "one": np.array([1], np.int64),
            "least": np.array(1.0, np.float32),
            "open": np.array(np.inf, np.float32),
        },
    )
    embedding = graph_of(
        [
            node("Reshape", ["x", "flat"], ["f"]),
            node("MatMul", ["f", "w"], ["m"], name="embed"),
            node("Reshape", ["m", "out"], ["y"]),
        ],
        [["n", 76, 32, 1], ["n", 1, 1, 96]],
        {
            "w": (drawn.standard_normal((76 * 32, 96)) / 50).astype(np.float32),
            "flat": np.array([-1, 76 * 32], np.int64),
            "out": np.array([-1, 1, 1, 96], np.int64),
        },
    )
    head = graph_of(
        [
            node("Flatten", ["x"], ["f"]),
            node("MatMul", ["f", "w"], ["m"], name="score"),
            node("Sigmoid", ["m"], ["y"]),
        ],
        [[1, 16, 96], [1, 1]],
        {"w": (drawn.standard_normal((16 * 96, 1)) / 200).astype(np.float32)},
    )
    for name, model in zip(FILES, (mel, embedding, head), strict=True):
        onnx.save(model, str(folder / name))
    return folder


def test_a_wake_word_scores_alike_and_a_fault_does_not(
    tmp_path: Path, material: Path, job: Job
) -> None:
    source = wake_word_source(tmp_path / "source")
    assert families.recognise(source) == (WAKE_WORD,)
    reference = converted(WAKE_WORD, source, tmp_path / "reference", job)
    assert manifest.read(reference).engine == {"engine": "onnxruntime", "embeddings": 16}
    candidate = quantised(WAKE_WORD, reference, "fp16", job)
    figures = wake_word.measure(reference, candidate, material, 1)
    assert not missed(WAKE_WORD, figures)
    assert figures["size_ratio"] < 0.6
    path = candidate / FILES[1]
    model = onnx.load(str(path))
    silence(weights(model)[0])
    onnx.save(model, str(path))
    broken = missed(WAKE_WORD, wake_word.measure(reference, candidate, material, 1))
    assert "embedding_cosine" in broken


def test_a_missing_graph_is_named(tmp_path: Path) -> None:
    source = wake_word_source(tmp_path / "source")
    (source / FILES[0]).unlink()
    with pytest.raises(ArtifactError, match=f"lacks {FILES[0]}"):
        WAKE_WORD.inspect(source)


def test_the_material_has_speech_pauses_and_noise(material: Path) -> None:
    track = recordings.track(material)
    assert np.array_equal(track, recordings.track(material))
    assert np.abs(track).max() <= 1.5
    assert (track == 0).mean() > 0.1
    plain = recordings.speech(material)[0].samples
    difference = recordings.noisy(plain, 1) - plain
    assert 10 * np.log10(np.mean(plain**2) / np.mean(difference**2)) == pytest.approx(10, abs=0.1)
