"""Which execution provider a session runs on, what is said when one cannot, and what is compiled.

The graphs are small enough for the emulator of the HTP to take milliseconds. On x86-64 Linux
onnxruntime-qnn comes with the test extra, so nothing is skipped; elsewhere there is no emulator.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgevoice import config, manifest
from edgevoice.devices import defaults, socs
from edgevoice.devices.profile import load_profile
from edgevoice.engines import probe, providers
from edgevoice.engines.ort import open_on
from edgevoice.engines.providers import Files, Ran, Wanted
from edgevoice.errors import ArtifactError, ConfigError, EngineError, ExportError
from edgevoice.export import htp
from edgevoice.quant import htp_qdq, static_graph
from edgevoice.quant.float_again import without_rounding
from edgevoice.settings import Settings
from edgevoice.weights import Engines

ON_X86 = pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux",
    reason="the HTP's compiler and emulator are for x86-64 Linux",
)
SOC = socs.find("sm8650")
RNG = np.random.default_rng(0)
FEEDS = [{"x": RNG.normal(size=(1, 8)).astype(np.float32)} for _ in range(8)]


def graph(*kinds: str, batch: int | str = 1) -> onnx.ModelProto:
    """A product, then an operator of each of ``kinds``."""
    weight = numpy_helper.from_array(RNG.normal(size=(8, 4)).astype(np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["v0"], name="product")]
    for i, kind in enumerate(kinds):
        nodes.append(helper.make_node(kind, [f"v{i}"], [f"v{i + 1}"], name=f"the_{kind}_{i}"))
    nodes[-1].output[0] = "y"
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 8])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])]
    made = helper.make_graph(nodes, "g", inputs, outputs, [weight])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def outputs(session: Any) -> Any:
    return np.concatenate([session.run(None, feed)[0] for feed in FEEDS])


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A float graph, and beside it its context binary for the 8 Gen 3."""
    folder = tmp_path_factory.mktemp("artifact")
    model = static_graph.fix(graph("Relu"), {})
    onnx.save(model, str(folder / "model.onnx"))
    quantised = htp_qdq.write(model, FEEDS, 16)
    made = htp.compile_graph(quantised, folder / "model.qnn", SOC, Path(sys.executable))
    facts = {"soc": "sm8650", "soc_model": 57, "qnn_version": made.qnn_version}
    return Files(folder / "model.onnx", made.path, facts)


def options() -> Any:
    import onnxruntime

    return onnxruntime.SessionOptions()


def copied(files: Files, folder: Path) -> Files:
    """The same binary under a path at which nothing was loaded before."""
    assert files.context is not None
    folder = Path(shutil.copytree(files.context.parent, folder / "artifact"))
    return replace(files, model=folder / "model.onnx", context=folder / files.context.name)


@ON_X86
def test_a_binary_is_opened_in_a_child_the_first_time_and_never_again(
    compiled: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[str, ...]] = []

    def attempt(*given: str) -> tuple[int, bytes]:
        tried.append(given)
        return real(*given)

    real = probe.attempt
    monkeypatch.setattr(probe, "attempt", attempt)
    files = copied(compiled, tmp_path)
    for _ in range(2):
        assert providers.open_session(files, options, Wanted(("qnn",), True))[1].name == "qnn"
    assert [given[1] for given in tried] == [str(files.context)]


@ON_X86
def test_a_binary_that_ends_its_process_is_passed_over(
    compiled: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "attempt", lambda *given: (-11, b"a last word"))
    session, ran = providers.open_session(
        copied(compiled, tmp_path), options, Wanted(("qnn", "cpu"))
    )
    (line,) = ran.passed_over
    assert ran.name == "cpu" and session.get_providers() == ["CPUExecutionProvider"]
    assert line.startswith("qnn: its first load ") and "SIGSEGV" in line and "a last word" in line


@ON_X86
def test_a_context_binary_runs_in_the_emulator_and_says_so(compiled: Files) -> None:
    session, ran = providers.open_session(compiled, options, Wanted(("qnn", "cpu"), True))
    assert (ran.name, ran.detail, ran.passed_over) == ("qnn", "sm8650, HTP emulator", ())
    on_cpu, cpu = providers.open_session(compiled, options, Wanted())
    assert cpu == Ran("cpu")
    np.testing.assert_allclose(outputs(session), outputs(on_cpu), atol=0.05)
    assert not np.array_equal(outputs(session), outputs(on_cpu))  # 16 bits are not float


BROKEN: dict[str, tuple[Callable[[Files], Files], str]] = {
    "no binary": (lambda f: replace(f, context=None), "no context binary"),
    "newer": (
        lambda f: replace(f, made_for={**f.made_for, "qnn_version": "99.0.0"}),
        "made with QNN 99.0.0, here is 2",
    ),
    "not a binary": (lambda f: replace(f, context=f.model.parent / "gone.qnn"), "does not load"),
}


@ON_X86
@pytest.mark.parametrize("fault", BROKEN)
def test_what_the_npu_cannot_load_runs_on_the_cpu_with_the_reason(
    fault: str, compiled: Files
) -> None:
    broken, reason = BROKEN[fault][0](compiled), BROKEN[fault][1]
    session, ran = providers.open_session(broken, options, Wanted(("qnn", "cpu")))
    assert ran.name == "cpu"
    (line,) = ran.passed_over
    assert line.startswith("qnn: ") and reason in line and "\n" not in line
    assert outputs(session).shape == (8, 4)
    with pytest.raises(EngineError, match=reason):
        providers.open_session(broken, options, Wanted(("qnn", "cpu"), required=True))


@ON_X86
def test_a_damaged_binary_runs_on_the_cpu(compiled: Files, tmp_path: Path) -> None:
    assert compiled.context is not None
    whole = onnx.load(str(compiled.context))
    (node,) = whole.graph.node
    (cache,) = (a for a in node.attribute if a.name == "ep_cache_context")
    cache.s = cache.s[: len(cache.s) // 2]
    onnx.save(whole, str(tmp_path / "half.qnn"))
    broken = replace(compiled, context=tmp_path / "half.qnn")
    _, ran = providers.open_session(broken, options, Wanted(("qnn",)))
    assert ran.name == "cpu" and "does not load" in ran.passed_over[0]


@ON_X86
def test_a_missing_vendor_library_is_named(
    compiled: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import onnxruntime_qnn

    gone = str(tmp_path / "libQnnHtp.so")
    monkeypatch.setattr(onnxruntime_qnn, "get_qnn_htp_path", lambda: gone)
    _, ran = providers.open_session(compiled, options, Wanted(("qnn", "cpu")))
    assert ran.name == "cpu" and "libQnnHtp.so is missing" in ran.passed_over[0]


def test_a_missing_package_is_named(
    compiled_without: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_qnn", None)
    _, ran = providers.open_session(compiled_without, options, Wanted(("qnn", "cpu")))
    assert ran.name == "cpu" and "pip install 'edgevoice[qnn]'" in ran.passed_over[0]


@pytest.fixture
def compiled_without(tmp_path: Path) -> Files:
    """Files that look like those of an artifact for an NPU."""
    onnx.save(graph("Relu"), str(tmp_path / "model.onnx"))
    (tmp_path / "model.qnn").touch()
    return Files(tmp_path / "model.onnx", tmp_path / "model.qnn", {"soc": "sm8650"})


def test_a_binary_for_another_chip_is_refused_on_a_device(
    compiled_without: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    class Device:
        class device:
            type = onnxruntime.OrtHardwareDeviceType.NPU

    monkeypatch.setattr(providers, "_qnn_device", lambda version: (Device, Path("lib")))
    monkeypatch.setattr(socs, "this_machine", lambda: "sm8550")
    _, ran = providers.open_session(compiled_without, options, Wanted(("qnn", "cpu")))
    assert "was made for sm8650, this is sm8550" in ran.passed_over[0]


@pytest.mark.parametrize("name", ["xnnpack", "rknn", "cuda", "coreml", "nnapi"])
def test_what_this_onnxruntime_has_not_is_passed_over(name: str, tmp_path: Path) -> None:
    onnx.save(graph("Relu"), str(tmp_path / "m.onnx"))
    _, ran = open_on(tmp_path / "m.onnx", 1, Wanted((name, "cpu")))
    assert ran.name == "cpu" and ran.passed_over[0].startswith(f"{name}: ")
    with pytest.raises(EngineError, match=f"does not run on {name}"):
        open_on(tmp_path / "m.onnx", 1, Wanted((name,), required=True))


def test_a_graph_that_the_cpu_cannot_load_is_an_artifact_error(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08no")
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        open_on(tmp_path / "m.onnx", 1, Wanted(("qnn", "cpu")))


def test_files_of_an_artifact(tmp_path: Path) -> None:
    described = manifest.Manifest(
        *("a", "end-of-turn", "smart-turn", "qnn", "int8", "MIT", "x"),
        files=tuple(
            manifest.ArtifactFile(name, 1, "0") for name in ("model.onnx", "model.qnn", "b.txt")
        ),
        engine={"npu": {"soc": "sm8650"}},
    )
    found = providers.files_of(tmp_path, described, tmp_path / "model.onnx")
    assert found.context == tmp_path / "model.qnn" and found.made_for["soc"] == "sm8650"
    plain = replace(described, engine={})
    assert providers.files_of(tmp_path, plain, tmp_path / "model.onnx").context is None


def test_names_of_device_profiles_are_taken() -> None:
    assert providers.names(["QNNExecutionProvider", "xnnpack"]) == ("qnn", "xnnpack")
    with pytest.raises(ConfigError, match="unknown execution provider 'npu'"):
        providers.names(["npu"])


def test_a_device_profile_sets_the_order() -> None:
    order = defaults.of_profile(load_profile("android-snapdragon-8"))
    assert order["end_of_turn", "providers"] == ("qnn", "cpu")
    assert order["speech", "providers"] == ("cpu",)
    order = defaults.of_profile(load_profile("jetson-orin-nano"))
    assert order["recogniser", "providers"][-1] == "cpu"


def test_settings_take_a_list_and_write_it_back() -> None:
    text = 'end_of_turn.providers=["qnn", "cpu"]'
    settings = config.override(Settings(), [text])
    assert settings.end_of_turn.providers == ("qnn", "cpu")
    assert 'providers = ["qnn", "cpu"]' in config.to_toml(settings)
    for bad, reason in (('["qn"]', "did you mean 'qnn'"), ("qnn", "must be a list")):
        with pytest.raises(ConfigError, match=reason):
            config.override(Settings(), [f"end_of_turn.providers={bad}"])


class Judge:
    """What an engine on onnxruntime is to whoever asks where it runs."""

    provider = Ran("qnn", "sm8650", ("xnnpack: no",))


def test_engines_say_what_they_run_on() -> None:
    silent: Any = object()
    engines = Engines(silent, silent, Judge(), silent, silent)  # type: ignore[arg-type]
    assert engines.providers() == {"end-of-turn": Judge.provider}


@pytest.mark.parametrize("said", ["SM8650\n", "sm8650", "QCM6490", "Raspberry Pi 5"])
def test_the_kernel_says_which_chip_it_is(said: str, tmp_path: Path) -> None:
    path = tmp_path / "machine"
    path.write_text(said)
    known = {"SM8650\n": "sm8650", "sm8650": "sm8650", "QCM6490": "qcs6490"}
    assert socs.this_machine(path) == known.get(said, "raspberry pi 5")
    assert socs.this_machine(tmp_path / "none") == ""


@ON_X86
def test_a_planted_operator_that_the_htp_lacks_is_named(tmp_path: Path) -> None:
    """With nothing forbidden onnxruntime would run it on the CPU and say nothing."""
    model = static_graph.fix(graph("Relu", "Erf", "Relu"), {})
    with pytest.raises(ExportError, match=r"does not take Erf in 1 nodes \(the_Erf_1\)") as raised:
        htp.compile_graph(model, tmp_path / "m.qnn", SOC, Path(sys.executable))
    assert "nothing may fall back to the CPU" in str(raised.value)
    assert list(tmp_path.iterdir()) == []  # no half of a binary either


@ON_X86
def test_a_chip_without_floats_says_so(tmp_path: Path) -> None:
    model = static_graph.fix(graph("Relu"), {})
    with pytest.raises(ExportError, match="no node of the graph; v68 computes no float"):
        htp.compile_graph(model, tmp_path / "m.qnn", socs.find("qcs6490"), Path(sys.executable))
    quantised = htp_qdq.write(model, FEEDS, 8)
    made = htp.compile_graph(
        quantised, tmp_path / "m.qnn", socs.find("qcs6490"), Path(sys.executable)
    )
    assert made.bytes == (tmp_path / "m.qnn").stat().st_size


def test_too_little_memory_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(htp.host, "memory_mb", lambda: (1000, 100))
    with pytest.raises(ExportError, match="needs about 200 MiB of memory, 100 MiB"):
        htp.compile_graph(graph("Relu"), tmp_path / "m.qnn", SOC, Path(sys.executable))


def test_a_compiler_that_dies_is_one_line(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    with pytest.raises(ExportError, match="SIGKILL, probably for want of memory"):
        htp.compile_graph(graph("Relu"), tmp_path / "m.qnn", SOC, program)


REFUSALS: Sequence[tuple[str, list[list[str]], str]] = [
    ("QNN_COMMON_ERROR_MEM_ALLOC: Code: 1002", [], "the graph does not fit"),
    ("it broke\nbadly", [], "onnxruntime-qnn says: it broke badly"),
    ("but fallback to CPU EP is disabled", [], "takes no node of the graph"),
    ("QNN_COMMON_ERROR_MEM_ALLOC", [["n", "Gather"]], "does not take Gather in 1 nodes (n)"),
    ("x", [["n", "Erf"]] * 8, "Erf in 8 nodes (n, n, n, n, n, n and 2 more)"),
]


@pytest.mark.parametrize(("error", "operators", "said"), REFUSALS)
def test_refusals_are_one_line(error: str, operators: list[list[str]], said: str) -> None:
    line = htp.refusal(SOC, error, operators)
    assert said in line and "\n" not in line


def test_an_open_size_is_named() -> None:
    with pytest.raises(ExportError, match=r"input 'x' has the shape \[N, 8\]"):
        static_graph.fix(graph("Relu", batch="N"), {})
    fixed = static_graph.fix(graph("Relu", batch="N"), {"x": [1, 8]})
    assert [d.dim_value for d in fixed.graph.output[0].type.tensor_type.shape.dim] == [1, 4]


def normed(length: int = 5) -> onnx.ModelProto:
    """A layer norm whose factors span 1 to 300, then a product without a bias."""
    factor = np.array([1.0, 300.0, 2.0, 3.0, 5.0, 7.0, 0.5, 90.0], np.float32)
    steps = RNG.integers(-126, 127, size=(8, 4))
    steps[0] = 127  # so that 8 bits hold them exactly, with a scale for each column
    weight = (steps * [1, 2, 3, 4]).astype(np.float32)
    constants = {"f": factor, "o": RNG.normal(size=8).astype(np.float32), "w": weight}
    nodes = [
        helper.make_node("LayerNormalization", ["x", "f", "o"], ["n"], "norm"),
        helper.make_node("MatMul", ["n", "w"], ["y"], "product"),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, length, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, length, 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_a_norms_factor_of_8_bits_does_not_spoil_16() -> None:
    """The same graph; and in integers each column of the product is exact to 16 bits."""
    feeds = [{"x": RNG.normal(size=(1, 5, 8)).astype(np.float32)} for _ in range(8)]
    model = normed()
    apart = static_graph.norms_apart(model)
    assert [n.op_type for n in apart.graph.node] == ["LayerNormalization", "Mul", "Add", "MatMul"]
    assert len(model.graph.node) == 2
    quantised = htp_qdq.write(model, feeds, 16)
    for feed in feeds:
        (wanted,) = run(model, feed)
        np.testing.assert_allclose(run(apart, feed)[0], wanted, rtol=1e-4, atol=1.0)
        error = np.abs(run(quantised, feed)[0] - wanted)[0].max(axis=0)
        assert (error < 0.002 * np.abs(wanted[0]).max(axis=0)).all(), error
    factors = {t.name: t for t in quantised.graph.initializer}
    (weights,) = (t for name, t in factors.items() if name == "w_quantized")
    assert weights.data_type == TensorProto.INT8 and list(factors["w_scale"].dims) == [4]


@ON_X86
def test_a_norm_with_16_bit_activations_is_the_htps(tmp_path: Path) -> None:
    feeds = [{"x": RNG.normal(size=(1, 5, 8)).astype(np.float32)} for _ in range(4)]
    for soc in ("sm8650", "qcs6490"):
        quantised = htp_qdq.write(normed(), feeds, 16)
        htp.compile_graph(quantised, tmp_path / "m.qnn", socs.find(soc), Path(sys.executable))


def test_rounding_is_taken_out_and_the_integers_stay() -> None:
    model = static_graph.fix(graph("Sigmoid"), {})
    rounded = htp_qdq.write(model, FEEDS, 8)
    plain = without_rounding(rounded)
    assert [n.op_type for n in plain.graph.node] == ["MatMul", "Sigmoid"]
    # Onto the same grid again: nothing is lost twice.
    again = htp_qdq.write(plain, FEEDS, 8)
    old, new = (
        {t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (rounded, again)
    )
    (first,) = (v for v in old.values() if v.dtype == np.int8 and v.ndim == 2)
    (second,) = (v for v in new.values() if v.dtype == np.int8 and v.ndim == 2)
    np.testing.assert_array_equal(first, second)


def test_attention_is_written_with_products() -> None:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 5, 8]) for n in "qkvy"]
    node = helper.make_node(
        "MultiHeadAttention", ["q", "k", "v"], ["y"], "mha", domain="com.microsoft", num_heads=2
    )
    made = helper.make_graph([node], "g", values[:3], values[3:])
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(made, opset_imports=domains, ir_version=9)
    feed = {name: RNG.normal(size=(1, 5, 8)).astype(np.float32) for name in "qkv"}
    (wanted,) = run(model, feed)
    assert static_graph.plain_attention(model) == 1
    assert {n.op_type for n in model.graph.node} <= {
        *("Reshape", "Transpose", "Mul", "MatMul", "Softmax")
    }
    np.testing.assert_allclose(run(model, feed)[0], wanted, atol=1e-6)


def run(model: onnx.ModelProto, feed: dict[str, Any]) -> list[Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: list[Any] = session.run(None, feed)
    return found


@pytest.mark.parametrize("bits", [8, 16])
def test_integers_are_near_the_floats(bits: int) -> None:
    model = static_graph.fix(graph("Relu", "Sigmoid"), {})
    quantised = htp_qdq.write(model, FEEDS, bits)
    worst = max(float(np.abs(run(model, f)[0] - run(quantised, f)[0]).max()) for f in FEEDS)
    assert worst < (0.03 if bits == 8 else 0.01)
    with pytest.raises(ConfigError, match="8 or 16"):
        htp_qdq.write(model, FEEDS, 4)
    with pytest.raises(ConfigError, match="calibrated"):
        htp_qdq.write(model, [], bits)
