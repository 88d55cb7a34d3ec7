"""Every setting of a conversation: its section, key, default, meaning and allowed values.

Every section of the configuration file is one dataclass below and every key one of its fields.
:mod:`edgevoice.config` reads and writes the file and checks the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare one key: its default, what it means, and the values that it may take."""
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=metadata)


_PROVIDERS = ("cpu", "xnnpack", "qnn", "rknn", "cuda", "coreml", "nnapi")
_PROVIDERS_DOC = "execution providers, tried in this order"
_CORES_DOC = "cores that it runs on, as taskset takes them (4-7); '' for any"
_REQUIRED_DOC = "the first provider must run; otherwise the next is taken, with a warning"


PASSES = ("first", "second", "both")

FIRST_PASSES: Mapping[str, str] = {"whisper-tiny.en-int8": "streaming-en-int8"}
"""The streaming recogniser that ``recogniser.first_pass = "auto"`` puts before each recogniser."""


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """[device]: what this conversation runs on."""

    profile: str = setting(
        "",
        "device profile (`edgevoice devices list`) whose threads, cores, models and audio port "
        "are used where this file sets none; '' for none",
    )


@dataclass(frozen=True, slots=True)
class VadSettings:
    """[vad]: what counts as speech."""

    model: str = setting("silero-vad", "catalogue name or path of the VAD model")
    threshold: float = setting(
        0.5, "speech probability above which a window is speech", low=0.05, high=0.95
    )
    min_speech_ms: float = setting(
        64.0, "speech shorter than this is not reported", low=0, high=2000
    )
    min_silence_ms: float = setting(
        64.0, "silence shorter than this does not end speech", low=32, high=2000
    )
    providers: tuple[str, ...] = setting(("cpu",), _PROVIDERS_DOC, choices=_PROVIDERS)
    provider_required: bool = setting(False, _REQUIRED_DOC)
    preroll_ms: float = setting(
        300.0,
        "audio kept from before the onset, so that the first syllable survives",
        low=0,
        high=2000,
    )


@dataclass(frozen=True, slots=True)
class RecogniserSettings:
    """[recogniser]: speech to text."""

    model: str = setting("whisper-tiny.en-int8", "catalogue name or folder of the recogniser")
    first_pass: str = setting(
        "auto",
        "streaming recogniser that hears along while `model` writes what is answered; 'auto' is "
        "the bundle's own where it has one for `model`, '' is none",
    )
    passes: str = setting(
        "both",
        "which of the two listen; where there is no first pass, `model` alone",
        choices=PASSES,
    )
    second_pass_wait_ms: float = setting(
        3000.0,
        "wait for `model`; the first pass's text is answered when it takes longer",
        low=100,
        high=60000,
    )
    rewrite_interval_ms: float = setting(
        1000.0,
        "new audio of a turn that goes on between two texts of `model` where both passes listen: "
        "the language model reads them ahead",
        low=100,
        high=60000,
    )
    threads: int = setting(1, "threads of one decode", low=1, high=64)
    cores: str = setting("", _CORES_DOC)
    chunk_ms: float = setting(
        100.0, "audio goes to the recogniser in pieces of this length", low=50, high=2000
    )
    providers: tuple[str, ...] = setting(("cpu",), _PROVIDERS_DOC, choices=_PROVIDERS)
    provider_required: bool = setting(False, _REQUIRED_DOC)
    partial_interval_ms: float = setting(
        1000.0,
        "new audio between two growing partials of a segmented recogniser that listens alone",
        low=100,
        high=10000,
    )
    judges_endings: bool = setting(
        True,
        "let `model` judge from its own hearing whether a turn is over, where it can: "
        "whisper-tiny.en; [end_of_turn] model is asked where it cannot",
    )
    judges_nods: bool = setting(
        True,
        "let `model` judge from its own hearing whether speech over the agent is a nod, where it "
        "can: whisper-tiny.en",
    )
    max_utterance_s: float = setting(
        28.0, "a longer utterance is closed and taken as it is", low=2, high=28
    )
    hotwords: str = setting("", "file with one phrase a line for transducer packs; '' for none")
    hotwords_score: float = setting(1.5, "boost of each hotword token", low=0, high=10)
    words: tuple[str, ...] = setting(
        (), "words and names of yours that a streaming pack with a lexicon is to expect"
    )

    def first_pass_name(self) -> str:
        """Return the artifact that hears along, or would; "" for none."""
        return FIRST_PASSES.get(self.model, "") if self.first_pass == "auto" else self.first_pass

    def heard_with(self) -> Mapping[str, str]:
        """Return the artifacts that listen, by stage: one, or the first pass and then the second.

        The stage of a recogniser that listens alone is ``recogniser``, whichever it is.
        """
        first = self.first_pass_name()
        if not first or self.passes == "second":
            return {"recogniser": self.model}
        if self.passes == "first":
            return {"recogniser": first}
        return {"first-pass": first, "recogniser": self.model}


@dataclass(frozen=True, slots=True)
class EndOfTurnSettings:
    """[end_of_turn]: the model that judges from sound whether the user has finished."""

    model: str = setting("smart-turn-v3.2", "catalogue name or path; '' to use pauses alone")
    threads: int = setting(1, "threads of one judgement", low=1, high=64)
    cores: str = setting("", _CORES_DOC)
    providers: tuple[str, ...] = setting(("cpu",), _PROVIDERS_DOC, choices=_PROVIDERS)
    provider_required: bool = setting(False, _REQUIRED_DOC)
    threshold: float = setting(
        0.8,
        "probability from which a turn surely is finished; the wait is longer below it",
        low=0.0,
        high=1.0,
    )


@dataclass(frozen=True, slots=True)
class LanguageModelSettings:
    """[language_model]: what answers."""

    model: str = setting("smollm2-135m-instruct-q8_0", "catalogue name or path of a GGUF")
    threads: int = setting(
        0,
        "threads of prefill and decode; 0 is one for every core but one, and both of two cores "
        "while other processes leave one idle",
        low=0,
        high=64,
    )
    cores: str = setting("", _CORES_DOC)
    providers: tuple[str, ...] = setting(
        ("cpu",), f"{_PROVIDERS_DOC} (ONNX models alone)", choices=_PROVIDERS
    )
    provider_required: bool = setting(False, _REQUIRED_DOC)
    context_tokens: int = setting(2048, "prompt and answer together", low=256, high=131072)
    max_answer_tokens: int = setting(64, "an answer ends here at the latest", low=1, high=4096)
    temperature: float = setting(0.0, "0 is greedy", low=0, high=2)
    top_p: float = setting(0.95, "nucleus of the sampling", low=0, high=1)
    repetition_penalty: float = setting(1.05, "above 1 discourages loops", low=1, high=2)
    system_prompt: str = setting(
        "You are a helpful assistant. Keep answers short.",
        "said to the model before everything else; never dropped",
    )
    endpoint: str = setting(
        "",
        "base URL of an OpenAI-compatible server (http://host:port/v1); '' answers on this device",
    )
    endpoint_model: str = setting("", "model name to ask that server for")
    api_key_env: str = setting("", "environment variable that holds that server's key")
    timeout_s: float = setting(30.0, "wait for that server's next piece", low=1, high=600)


@dataclass(frozen=True, slots=True)
class SpeechSettings:
    """[speech]: text to speech."""

    model: str = setting("piper-en_US-joe-medium-int8", "catalogue name or folder of the voice")
    engine: str = setting("auto", "which engine runs the voice", choices=("auto", "onnx", "sherpa"))
    threads: int = setting(
        0, "threads of one synthesis; 0 is one for every core but one", low=0, high=64
    )
    cores: str = setting("", _CORES_DOC)
    first_chunk_ms: float = setting(
        350.0,
        "sound of a sentence that is made first, where its voice is made piece by piece; the rest "
        "must be made while it plays",
        low=50,
        high=2000,
    )
    providers: tuple[str, ...] = setting(("cpu",), _PROVIDERS_DOC, choices=_PROVIDERS)
    provider_required: bool = setting(False, _REQUIRED_DOC)
    speaker: int = setting(0, "speaker number of a voice with several", low=0, high=10000)
    speed: float = setting(1.0, "above 1 is faster", low=0.3, high=3.0)


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """[turns]: when to answer and when to fall silent."""

    language: str = setting(
        "en",
        "whose nods, answers and half sentences are known",
        choices=("en", "de", "fr", "es", "it", "pt", "zh", "ja"),
    )
    complete_wait_ms: float = setting(
        150.0, "silence after a turn that is surely over", low=100, high=3000
    )
    likely_wait_ms: float = setting(
        600.0, "silence after a turn that is likely over", low=100, high=5000
    )
    incomplete_wait_ms: float = setting(
        2000.0, "silence after a turn that surely is not", low=100, high=10000
    )
    unjudged_wait_ms: float = setting(
        700.0, "silence when there is no end-of-turn model", low=100, high=10000
    )
    adapt_wait_ms: float = setting(
        400.0,
        "added to complete_wait_ms and likely_wait_ms at most, for a speaker who pauses for long; "
        "0 adapts nothing",
        low=0,
        high=2000,
    )
    duck_gain: float = setting(
        0.3, "loudness of the agent's voice at the first sign of speech over it", low=0, high=1
    )
    barge_in_ms: float = setting(
        96.0, "speech over the agent's voice that pauses it", low=32, high=3000
    )
    words_wait_ms: float = setting(
        1000.0,
        "wait for the words of such speech once it has ended; without any the agent goes on",
        low=100,
        high=5000,
    )
    max_hold_ms: float = setting(
        2000.0, "a sound that goes on without words pauses the agent this long", low=200, high=10000
    )
    echo_similarity: float = setting(
        0.6, "share of the agent's own words that makes speech over it its echo", low=0.1, high=1
    )
    echo_margin_db: float = setting(
        0.0,
        "sound over the agent's voice that is not this much louder than its echo pauses nothing",
        low=-40,
        high=40,
    )
    background_db: float = setting(
        8.0,
        "speech over the agent's voice that is this much quieter than the user's own, as heard in "
        "the turns before, is background talk and pauses nothing",
        low=3,
        high=60,
    )
    min_speaker_similarity: float = setting(
        0.25,
        "a voice less like the enrolled owner's does not interrupt; without one all voices do",
        low=-1,
        high=1,
    )
    speculation_budget: float = setting(
        0.6,
        "share of recent work ahead that may be wasted; from it on answers are not begun before "
        "the turn is over (0: never)",
        low=0,
        high=1,
    )
    max_turn_s: float = setting(60.0, "a longer user turn is answered as it is", low=2, high=120)


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """[load]: doing less while answers come too late or the device is too hot."""

    enabled: bool = setting(True, "step down under load and heat, and up again afterwards")
    response_budget_ms: float = setting(
        1500.0,
        "from the end of the user's speech to the first sound, less what is waited beyond "
        "turns.complete_wait_ms; a device profile's voice_to_voice",
        low=0.001,
        high=3_600_000,
    )
    recognition_budget_rtf: float = setting(
        1.0, "recognition's time for an utterance over its length", low=0.01, high=100
    )
    gap_budget_ms: float = setting(
        500.0, "silence within an answer whose speech was not made in time", low=10, high=60000
    )
    missed_turns: int = setting(
        3, "turns in a row over a budget that step down once", low=1, high=100
    )
    met_turns: int = setting(4, "turns in a row with room that may step up once", low=1, high=100)
    room: float = setting(
        0.7, "share of every budget that a turn with room stays below", low=0.1, high=1
    )
    calm_s: float = setting(
        60.0, "no step up so soon after another step, or after heat", low=0, high=3600
    )
    throttled_s: float = setting(
        30.0, "while the device throttles or is hot, one step down every so often", low=1, high=3600
    )
    hot_c: float = setting(
        0.0,
        "temperature that counts as throttling; 0: the device's own word alone",
        low=0,
        high=120,
    )
    answer_tokens: int = setting(
        24, "length of an answer after the step `answers`; 0: no such step", low=0, high=4096
    )
    recogniser: str = setting(
        "",
        "cheaper recogniser for the step `recognition`; '' is the first pass alone where both "
        "listen, else no such step",
    )
    language_model: str = setting(
        "", "smaller model for the step `language-model`; '' for no such step"
    )


@dataclass(frozen=True, slots=True)
class AudioSettings:
    """[audio]: ports."""

    port: str = setting("auto", "microphone and speaker", choices=("auto", "pyaudio", "pulse"))
    input_device: str = setting("", "name (part of it) of the microphone; '' for the default")
    output_device: str = setting("", "name (part of it) of the speaker; '' for the default")
    queue_ms: float = setting(
        2000.0,
        "audio that may wait to be heard; the oldest is dropped and counted",
        low=100,
        high=60000,
    )
    canceller: str = setting(
        "auto",
        "what removes the agent's own voice: 'auto' is the sound server's where it has one, else "
        "AEC3, and nothing for recordings and WebSocket callers",
        choices=("auto", "aec3", "system", "none"),
    )
    noise_suppression: bool = setting(False, "take steady noise away from the microphone")
    gain_control: bool = setting(False, "bring quiet and loud speakers to a common level")


@dataclass(frozen=True, slots=True)
class RecordingSettings:
    """[recording]: conversations that --record keeps."""

    max_mb: int = setting(
        500,
        "size of the folder of recordings; the oldest make room for new ones",
        low=1,
        high=1_000_000,
    )


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """[daemon]: serving sessions over a WebSocket."""

    host: str = setting("127.0.0.1", "address to bind")
    port: int = setting(8765, "port to bind", low=0, high=65535)
    max_sessions: int = setting(4, "further callers are refused", low=1, high=256)
    max_message_bytes: int = setting(
        1 << 20, "a larger WebSocket message is refused", low=1024, high=1 << 26
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration."""

    device: DeviceSettings = field(default_factory=DeviceSettings)
    vad: VadSettings = field(default_factory=VadSettings)
    recogniser: RecogniserSettings = field(default_factory=RecogniserSettings)
    end_of_turn: EndOfTurnSettings = field(default_factory=EndOfTurnSettings)
    language_model: LanguageModelSettings = field(default_factory=LanguageModelSettings)
    speech: SpeechSettings = field(default_factory=SpeechSettings)
    turns: TurnSettings = field(default_factory=TurnSettings)
    load: LoadSettings = field(default_factory=LoadSettings)
    audio: AudioSettings = field(default_factory=AudioSettings)
    recording: RecordingSettings = field(default_factory=RecordingSettings)
    daemon: DaemonSettings = field(default_factory=DaemonSettings)

    def artifacts(self) -> Mapping[str, str]:
        """Return the artifact that each stage runs on this device, by stage, as a turn meets them.

        A stage that is switched off, or that a server answers for, is not among them.
        """
        named = {"vad": self.vad.model, **self.recogniser.heard_with()}
        if self.end_of_turn.model:
            named["end-of-turn"] = self.end_of_turn.model
        if not self.language_model.endpoint:
            named["language-model"] = self.language_model.model
        named["speech"] = self.speech.model
        return named

    def cheaper(self) -> Mapping[str, str]:
        """Return the artifact that a stage falls back on under load, for stages that have one.

        None is loaded before it is wanted. A server that answers costs this device nothing.
        """
        if not self.load.enabled:
            return {}
        ordinary = self.artifacts()
        named = {"recogniser": self.load.recogniser or ordinary.get("first-pass", "")}
        if not self.language_model.endpoint:
            named["language-model"] = self.load.language_model
        return {stage: name for stage, name in named.items() if name not in ("", ordinary[stage])}
