"""Opens an onnxruntime session on the first execution provider that takes it, and says which did.

Providers are tried in the order of the settings (the device profile's choice). One that cannot be
had is passed over with one line of why, or is an error where the first of the order is required.
What ran is never guessed: a session on an NPU has the CPU forbidden, so that a graph of which one
node would have to go there does not open on the NPU at all.

onnxruntime is imported when a session is opened: whoever only asks what ran need not wait for it.

Owns the order, the providers' libraries and the reasons. Which file of an artifact is for whom is
in its manifest (:class:`Files`).
"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from edgevoice.devices import socs
from edgevoice.engines import probe
from edgevoice.errors import ArtifactError, ConfigError, EngineError, unknown
from edgevoice.manifest import FILE_NAME, Manifest

NAMES: Mapping[str, str] = {
    "cpu": "CPUExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "rknn": "RknnExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "nnapi": "NnapiExecutionProvider",
}
"""Providers by the names of the settings, each with onnxruntime's own."""

EXTENSION = ".qnn"
"""Of a context binary in its ONNX wrapper; the artifact's ``.onnx`` is what the CPU runs."""

_QNN = NAMES["qnn"]
_registering = threading.Lock()


class NotHere(Exception):
    """A provider cannot run this artifact on this machine; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the settings ask for.

    Attributes:
        order: Names in :data:`NAMES`, the best first.
        required: The first of them must run.
    """

    order: tuple[str, ...] = ("cpu",)
    required: bool = False


ON_CPU = Wanted()


@dataclass(frozen=True, slots=True)
class Ran:
    """What a session runs on.

    Attributes:
        name: One of :data:`NAMES`.
        detail: Of the device, "" for the CPU: ``sm8650, HTP emulator``.
        passed_over: One line a provider that was tried before: its name and why not.
    """

    name: str = "cpu"
    detail: str = ""
    passed_over: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} ({self.detail})" if self.detail else self.name


@dataclass(frozen=True, slots=True)
class Files:
    """What an artifact has for each provider.

    Attributes:
        model: The graph that the CPU runs, and whatever compiles for itself.
        context: The context binary's wrapper, None where there is none.
        made_for: What the manifest says of it: ``soc``, ``soc_model``, ``qnn_version``.
    """

    model: Path
    context: Path | None = None
    made_for: Mapping[str, Any] = field(default_factory=dict)


def files_of(folder: Path, manifest: Manifest, model: Path) -> Files:
    """Return what the artifact in ``folder`` has; ``model`` is its graph for the CPU."""
    found = [f.path for f in manifest.files if f.path == f"{model.stem}{EXTENSION}"]
    made_for = manifest.engine.get("npu")
    if not found or not isinstance(made_for, Mapping):
        return Files(model)
    return Files(model, folder / found[0], made_for)


def of(engine: object) -> Ran | None:
    """Return what a loaded engine runs on; None where it has not said (it is not onnxruntime's)."""
    found = getattr(engine, "provider", None)
    return found if isinstance(found, Ran) else None


def names(given: Sequence[str]) -> tuple[str, ...]:
    """Return ``given`` by the settings' names; onnxruntime's own (of device profiles) are taken.

    >>> names(["QNNExecutionProvider", "cpu"])
    ('qnn', 'cpu')

    Raises:
        ConfigError: One is not known here.
    """
    short = {own: name for name, own in NAMES.items()}
    found = tuple(short.get(name, name) for name in given)
    for name in found:
        if name not in NAMES:
            raise ConfigError(unknown("execution provider", name, NAMES))
    return found


def open_session(files: Files, options: Any, wanted: Wanted) -> tuple[Any, Ran]:
    """Open ``files`` on the first provider of ``wanted`` that takes it, on the CPU if none does.

    Args:
        files: The artifact's.
        options: Makes fresh ``SessionOptions``: every provider is tried with its own.
        wanted: The order.

    Raises:
        ArtifactError: The CPU cannot load it either.
        EngineError: The first provider is required and cannot run it.
    """
    session, ran = open_first(files, options, wanted)
    return (_on_cpu(files.model, options()) if session is None else session), ran


def open_first(files: Files, options: Any, wanted: Wanted) -> tuple[Any | None, Ran]:
    """Open as :func:`open_session`, but nothing (None) where the CPU would be.

    Raises:
        EngineError: As :func:`open_session`.
    """
    passed_over: list[str] = []
    for name in wanted.order:
        if name == "cpu":
            break
        try:
            session, detail = _OPENERS[name](files, options())
        except NotHere as reason:
            if wanted.required and not passed_over:
                raise refusal(files.model.parent.name, name, str(reason)) from reason
            passed_over.append(f"{name}: {reason}")
        else:
            return session, Ran(name, detail, tuple(passed_over))
    return None, Ran(passed_over=tuple(passed_over))


def refusal(artifact: str, name: str, reason: str) -> EngineError:
    """Word that a required provider cannot run an artifact."""
    return EngineError(
        f"{artifact} does not run on {name}: {reason}; the settings require it "
        "(provider_required = false takes the next)"
    )


def _on_cpu(model: Path, options: Any) -> Any:
    import onnxruntime as ort

    try:
        return ort.InferenceSession(str(model), options, providers=[NAMES["cpu"]])
    except Exception as error:  # onnxruntime's own classes derive from Exception alone
        artifacts = (p.name for p in model.parents if (p / FILE_NAME).is_file())
        raise ArtifactError(
            f"{model} cannot be loaded ({_line(error)}); fetch it again: "
            f"`edgevoice models pull {next(artifacts, model.parent.name)}`"
        ) from error


def _on_xnnpack(files: Files, options: Any) -> tuple[Any, str]:
    import onnxruntime as ort

    if NAMES["xnnpack"] not in ort.get_available_providers():
        raise NotHere(f"onnxruntime {ort.__version__} is built without it")
    # XNNPACK has threads of its own; onnxruntime's guide wants the session's to be one.
    threads = str(options.intra_op_num_threads)
    options.intra_op_num_threads = 1
    chain = [(NAMES["xnnpack"], {"intra_op_num_threads": threads}), NAMES["cpu"]]
    try:
        return ort.InferenceSession(str(files.model), options, providers=chain), "with the CPU"
    except Exception as error:
        raise NotHere(_line(error)) from error


def _on_built_in(name: str, files: Files, options: Any) -> tuple[Any, str]:
    import onnxruntime as ort

    own = NAMES[name]
    if own not in ort.get_available_providers():
        raise NotHere(f"onnxruntime {ort.__version__} is built without it")
    try:
        session = ort.InferenceSession(str(files.model), options, providers=[own, NAMES["cpu"]])
    except Exception as error:
        raise NotHere(_line(error)) from error
    # onnxruntime takes the CPU and only warns where a provider's library is missing.
    if own not in session.get_providers():
        raise NotHere("its library does not load here")
    return session, "with the CPU"


def _on_qnn(files: Files, options: Any) -> tuple[Any, str]:
    if files.context is None:
        raise NotHere(
            "the artifact has no context binary; `edgevoice export qnn ARTIFACT --soc SOC` makes "
            "one of it"
        )
    _survive_first_load(files, files.context)
    return _open_context(files, files.context, options)


def open_context_alone(context: Path, made_for: str) -> None:
    """Open a context binary in this process, which native code may end; see :func:`_on_qnn`.

    Args:
        context: The binary.
        made_for: :attr:`Files.made_for` as JSON.

    Raises:
        ArtifactError: It cannot be opened here, for the reason that is said.
    """
    import onnxruntime as ort

    try:
        _open_context(Files(context, context, json.loads(made_for)), context, ort.SessionOptions())
    except NotHere as reason:
        raise ArtifactError(str(reason)) from reason


def _survive_first_load(files: Files, context: Path) -> None:
    """Open the binary in a child first, once for these bytes and libraries.

    Raises:
        NotHere: The child did not survive it.
    """
    loader = f"{__name__}:open_context_alone"
    if probe.survived(context, loader):
        return
    status, said = probe.attempt(loader, str(context), json.dumps(dict(files.made_for)))
    if status == probe.DELIBERATE:
        return  # The load that follows raises it again, here.
    if status:
        raise NotHere(f"its first load {probe.ending(status)}: {probe.last_line(said)[:200]}")
    probe.remember(context, loader)


def _open_context(files: Files, context: Path, options: Any) -> tuple[Any, str]:
    import onnxruntime as ort

    soc = str(files.made_for.get("soc", ""))
    device, library = _qnn_device(str(files.made_for.get("qnn_version", "")))
    emulated = device.device.type != ort.OrtHardwareDeviceType.NPU
    here = socs.this_machine()
    if not emulated and here and here != soc:
        raise NotHere(f"the context binary was made for {soc}, this is {here}; export it for that")
    chosen = {"backend_path": str(library)}
    if emulated:
        chosen["soc_model"] = str(files.made_for.get("soc_model", ""))
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.log_severity_level = 4  # the reason is in what is raised; the log repeats it
    try:
        options.add_provider_for_devices([device], chosen)
        session = ort.InferenceSession(str(context), options)
    except Exception as error:
        raise NotHere(
            f"the context binary for {soc} does not load ({_line(error)}); export it again for "
            "this chip and this onnxruntime-qnn"
        ) from error
    return session, f"{soc}, HTP emulator" if emulated else soc


def _qnn_device(made_with: str) -> tuple[Any, Path]:
    """Return the device and the backend's library; the provider's library is loaded once."""
    import onnxruntime as ort

    try:
        package = importlib.import_module("onnxruntime_qnn")
    except ImportError as error:
        raise NotHere("onnxruntime-qnn is not installed; pip install 'edgevoice[qnn]'") from error
    backend = Path(package.get_qnn_htp_path())
    for library in (Path(package.get_library_path()), backend):
        if not library.is_file():
            raise NotHere(
                f"{library.name} is missing from {library.parent}; "
                "pip install --force-reinstall onnxruntime-qnn"
            )
    version = str(package.build_and_package_info.qnn_version)
    if _numbers(made_with) > _numbers(version):
        raise NotHere(
            f"the context binary was made with QNN {made_with}, here is {version}; pip install "
            "--upgrade onnxruntime-qnn, or export with this version"
        )
    with _registering:
        try:
            found = _qnn_devices()
            if not found:
                ort.register_execution_provider_library(_QNN, package.get_library_path())
                found = _qnn_devices()
        except Exception as error:
            raise NotHere(f"its library does not load: {_line(error)}") from error
    if not found:
        raise NotHere("its library finds no device")
    # On a phone the chip's CPU and GPU are listed too; here only the emulator's CPU is.
    return min(found, key=lambda d: d.device.type != ort.OrtHardwareDeviceType.NPU), backend


def _qnn_devices() -> list[Any]:
    import onnxruntime as ort

    return [device for device in ort.get_ep_devices() if device.ep_name == _QNN]


def _on_rknn(files: Files, options: Any) -> tuple[Any, str]:
    del files, options
    raise NotHere("onnxruntime has no provider for Rockchip's NPU; see docs/npu.md")


_OPENERS: Mapping[str, Callable[[Files, Any], tuple[Any, str]]] = {
    "xnnpack": _on_xnnpack,
    "qnn": _on_qnn,
    "rknn": _on_rknn,
    **{name: partial(_on_built_in, name) for name in ("cuda", "coreml", "nnapi")},
}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
