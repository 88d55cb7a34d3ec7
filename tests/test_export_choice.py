"""Which family a source is for, and what is said when only a part of it is for one."""

from pathlib import Path

import pytest

from edgevoice.errors import ArtifactError
from edgevoice.export import plan
from edgevoice.export.source import Resolved


def resolved(spec: str, path: Path) -> Resolved:
    return Resolved(spec=spec, path=path, name="x", origin="file:x")


@pytest.mark.parametrize(
    ("spec", "to_name"),
    [("pypi:thing==1", "pypi:thing==1!package/data"), ("./thing/", "./thing/package/data")],
)
def test_a_source_with_a_model_inside_says_what_to_name(
    tmp_path: Path, spec: str, to_name: str
) -> None:
    inner = tmp_path / "package" / "data"
    inner.mkdir(parents=True)
    for part in ("model.onnx", "voices.bin", "tokens.txt"):
        (inner / part).touch()
    assert plan.choose(resolved(spec, inner), "").name == "kitten"
    with pytest.raises(ArtifactError) as said:
        plan.choose(resolved(spec, tmp_path), "")
    assert str(said.value).endswith(f"what lies inside; name that: {to_name}")


def test_a_source_with_nothing_inside_lists_what_families_look_for(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="no family recognises it; known: piper, kokoro"):
        plan.choose(resolved("./thing", tmp_path), "")
