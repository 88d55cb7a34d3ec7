"""Which models fit a device, and the field that says why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import machines
import pytest

from edgevoice import catalogue
from edgevoice.devices import fit
from edgevoice.devices.detect import detect
from edgevoice.devices.fit import Need, fit_artifact, fit_bundle, need_of_manifest, needs
from edgevoice.devices.profile import DeviceProfile, load_profile
from edgevoice.engines.sherpa_online_packs import ONLINE_FAMILIES
from edgevoice.manifest import ArtifactFile, Manifest
from edgevoice.store import Store

BUILT_FOR = {"device": "x86-64", "architecture": "x86_64", "cpu_features": ["avx2"]}


def need(**changes: object) -> Need:
    base = Need("a", "recogniser", "whisper", "onnx", "int8", 100)
    return replace(base, **changes)  # type: ignore[arg-type]


def profile(**changes: object) -> DeviceProfile:
    base = DeviceProfile("mine", "Mine", "aarch64", cpu_features=("asimd",), memory_mb=1000)
    return replace(base, **changes)  # type: ignore[arg-type]


def fields(found: fit.Fit) -> list[str]:
    assert found.fits == (not found.problems)
    return [problem.field for problem in found.problems]


def manifest(size: int, **changes: object) -> Manifest:
    base = Manifest(
        **{"name": "a", "stage": "speech", "family": "piper", "format": "onnx", "scheme": "int8"},
        **{"licence": "MIT", "source": "x", "files": (ArtifactFile("a.onnx", size, "0" * 64),)},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_the_families_that_stream_are_the_engines() -> None:
    assert set(ONLINE_FAMILIES) == fit.STREAMING_FAMILIES


def test_memory_leaves_the_system_its_share() -> None:
    assert fields(fit_artifact(need(memory_mb=690), profile())) == []
    found = fit_artifact(need(memory_mb=691), profile())
    assert fields(found) == ["memory_mb"]
    assert str(found.problems[0]) == (
        "memory_mb: needs about 751 MiB, 750 of 1000 MiB are left beside the system"
    )


def test_a_budget_decides_before_the_memory() -> None:
    found = fit_artifact(need(memory_mb=341), profile(memory_budget_mb=400))
    assert [str(p) for p in found.problems] == [
        "memory_budget_mb: needs about 401 MiB, 400 MiB are allowed"
    ]
    assert fit_artifact(need(memory_mb=9999), profile(memory_mb=0)).fits


def test_a_bundle_needs_all_of_its_members() -> None:
    members = [need(name="a", memory_mb=400), need(name="b", memory_mb=400, measured=True)]
    found = fit_bundle("both", members, profile())
    assert (found.memory_mb, found.measured, fields(found)) == (860, False, ["memory_mb"])


def test_streaming_on_a_device_that_is_too_slow_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    zero = profile(recognition="segmented")
    found = fit_bundle("b", [need(name="z", family="online-transducer")], zero)
    assert [str(p) for p in found.problems] == [
        "recognition: z: segmented, and online-transducer recognisers decode all the time"
    ]
    assert fit_artifact(need(family="whisper"), zero).fits
    monkeypatch.setattr(fit, "FIRST_PASSES", {"whisper": "our-own"})
    assert fit_artifact(need(name="our-own", family="wenet-ctc"), zero).fits


def test_an_npu_artifact_needs_its_provider() -> None:
    found = fit_artifact(need(format="qnn"), profile())
    assert str(found.problems[0]) == (
        "providers: needs QNNExecutionProvider, has CPUExecutionProvider"
    )
    assert fit_artifact(need(format="qnn"), load_profile("android-snapdragon-8")).fits


def test_an_artifact_for_another_architecture_or_device() -> None:
    made = need_of_manifest(
        manifest(1 << 20, device="x86-64", checks={"export": {"built_for": BUILT_FOR}})
    )
    found = fit_artifact(made, profile())
    assert found.fits and found.notes == ("made for x86-64",)
    compiled = replace(made, format="qnn")
    found = fit_artifact(compiled, profile(providers=("QNNExecutionProvider",)))
    assert str(found.problems[0]) == "architecture: made for x86-64 (x86_64), this is aarch64"
    other = profile(name="other", architecture="x86_64", cpu_features=("avx512_vnni",))
    assert fit_artifact(made, other).notes == ("made for x86-64",)


@pytest.mark.parametrize(
    ("changes", "features", "warned"),
    [
        ({}, ("avx2",), True),
        ({"weight_bits": 7}, ("avx2",), False),
        ({}, ("avx2", "avx_vnni"), False),
        ({"scheme": "int8-weights"}, ("avx2",), False),
        ({"scheme": "q8_0", "format": "gguf"}, ("avx2",), False),
    ],
)
def test_eight_bits_without_vnni(
    changes: dict[str, object], features: tuple[str, ...], warned: bool
) -> None:
    here = profile(architecture="x86_64", cpu_features=features)
    found = fit_artifact(need(**changes), here)
    assert found.fits
    assert [note.startswith("cpu_features: ") for note in found.notes] == [True] * warned
    assert not fit_artifact(need(), profile()).notes  # Arm sums in 32 bits


def test_what_the_exporter_measured_is_taken() -> None:
    measured = need_of_manifest(manifest(1 << 20, checks={"figures": {"peak_memory_mb": 200.4}}))
    assert (measured.memory_mb, measured.measured) == (200 - fit.BASE_MB, True)
    estimated = need_of_manifest(manifest(10 << 20))
    assert (estimated.memory_mb, estimated.measured) == (60, False)
    assert need_of_manifest(manifest(10 << 20, format="gguf")).memory_mb == 40


def test_what_is_installed_stands_over_the_catalogue(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.incoming() as folder:
        (folder / "out").mkdir()
        (folder / "out" / "a.onnx").write_bytes(bytes(1 << 20))
        store.publish(folder / "out", manifest(1 << 20, name="silero-vad"))
    known = catalogue.load()
    found = needs(known, store)
    assert set(found) == set(known.entries)
    assert found["silero-vad"].memory_mb == 42
    assert found["smart-turn-v3.2"].memory_mb > 50


def test_the_default_bundle_on_known_devices(tmp_path: Path) -> None:
    known = catalogue.load()
    asked = needs(known, Store(tmp_path))
    members = [asked[name] for name in known.bundles["default"]]
    for name in ("raspberry-pi-4", "raspberry-pi-5", "x86-64", "android-termux"):
        assert fit_bundle("default", members, load_profile(name)).fits, name
    zero = fit_bundle("default", members, load_profile("raspberry-pi-zero-2w"))
    assert fields(zero) == ["memory_budget_mb"]


def test_this_machines_memory_and_features_stand_over_the_profile(tmp_path: Path) -> None:
    machine = detect(machines.raspberry_pi_5(tmp_path))
    here = fit.of_machine(load_profile("raspberry-pi-5"), machine)
    assert (here.memory_mb, here.memory_budget_mb) == (8062, 0)
    silent = replace(machine, memory_mb=0)
    kept = fit.of_machine(load_profile("raspberry-pi-5"), silent)
    assert (kept.memory_mb, kept.memory_budget_mb) == (2048, 1200)
