"""Traces a VITS checkpoint (MMS-TTS) with torch; run by :mod:`edgevoice.export.torch_trace` alone.

optimum-onnx exports VITS with its speed and noise as constants; here they are inputs, in the order
in which sherpa-onnx gives them. Writes `model.onnx` (``x`` [1, tokens], ``x_length``,
``noise_scale``, ``length_scale``, ``noise_scale_w``, ``sid`` where there are several speakers, to
``y`` [1, samples]), `facts.json`, and `check.npz`: some tokens and what torch says of them without
noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # at run time there is no edgevoice
    from edgevoice.export.torch_trace import Checkpoint

OPSET = 18
INPUTS = ("x", "x_length", "noise_scale", "length_scale", "noise_scale_w", "sid")
CHECK_TOKENS = 41


def trace(checkpoint: Checkpoint) -> None:
    """Write the graph, the facts and the check of ``checkpoint``."""
    import numpy as np
    import torch
    from transformers import AutoTokenizer, VitsModel

    tokenizer = checkpoint.read(AutoTokenizer)
    model = checkpoint.model(VitsModel, attn_implementation="eager")
    speakers = int(model.config.num_speakers)

    class Voice(torch.nn.Module):  # type: ignore[misc]  # torch is not here when this is checked
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            """Run the model with its settings taken from the inputs."""
            tokens, length, noise, slowness, noise_of_durations, *speaker = inputs
            self.model.noise_scale = noise
            self.model.noise_scale_duration = noise_of_durations
            self.model.speaking_rate = 1.0 / slowness
            mask = (torch.arange(tokens.shape[1])[None] < length[:, None]).long()
            who = speaker[0] if speaker else None
            return self.model(tokens, mask, who, return_dict=False)[0]

    # Tracing leaves a module as it was, and a new one is in training, with its dropout.
    voice = Voice().eval()
    tokens = np.random.default_rng(0).integers(1, model.config.vocab_size, (1, CHECK_TOKENS))
    tokens[0, ::2] = 0

    def inputs(noise: float, noise_of_durations: float, slowness: float) -> tuple[Any, ...]:
        given = [torch.from_numpy(tokens), torch.tensor([CHECK_TOKENS])]
        given += [torch.tensor([value]) for value in (noise, slowness, noise_of_durations)]
        return (*given, torch.tensor([speakers - 1])) if speakers > 1 else tuple(given)

    slower = 1.25
    with torch.no_grad():
        said = voice(*inputs(0.0, 0.0, slower))
        torch.onnx.export(
            voice,
            inputs(0.667, 0.8, 1.0),
            str(checkpoint.out / "model.onnx"),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(INPUTS if speakers > 1 else INPUTS[:-1]),
            output_names=["y"],
            dynamic_axes={"x": {1: "tokens"}, "y": {1: "samples"}},
        )
    np.savez(
        checkpoint.out / "check.npz", tokens=tokens[0], sound=said[0].numpy(), length_scale=slower
    )
    facts = read_facts(model, tokenizer)
    checkpoint.write_facts(facts)


def read_facts(model: Any, tokenizer: Any) -> dict[str, Any]:
    """Return what sherpa-onnx's front end has to know; tokens with their numbers."""
    config = model.config
    return {
        "tokens": tokenizer.get_vocab(),
        "scores": int(config.vocab_size),
        "unknown": tokenizer.unk_token or "",
        "add_blank": bool(tokenizer.add_blank),
        "lower_case": bool(tokenizer.normalize),
        "phonemes": bool(tokenizer.phonemize),
        "roman": bool(tokenizer.is_uroman),
        "language": tokenizer.language or "",
        "speakers": int(config.num_speakers),
        "sample_rate_hz": int(config.sampling_rate),
        "noise_scale": float(config.noise_scale),
        "noise_scale_w": float(config.noise_scale_duration),
        "length_scale": 1.0 / float(config.speaking_rate),
    }
