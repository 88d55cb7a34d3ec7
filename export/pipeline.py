"""One export from its plan to its end: reference, candidates, gates, fallbacks, publishing.

Every step is someone else's: the plan's refusals (:mod:`edgevoice.export.plan`), the family's
conversion, the measurement (:mod:`edgevoice.export.candidates`), the rename at the end
(:mod:`edgevoice.export.publish`). Owns their order, and what is said and kept on the way.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edgevoice import manifest
from edgevoice.errors import ArtifactError, EdgevoiceError, EngineError, ExportError
from edgevoice.export import candidates, pickles, plan, publish, recorded, workspace
from edgevoice.export.calibration import Calibration
from edgevoice.export.candidates import Candidate, Footprint
from edgevoice.export.family import Job, Written
from edgevoice.export.plan import Plan, Request, Step
from edgevoice.export.workspace import Workspace
from edgevoice.manifest import FILE_NAME
from edgevoice.progress import Meter
from edgevoice.quant import child
from edgevoice.quant.scheme import Scheme
from edgevoice.store import Store

REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an export ended.

    Attributes:
        reference: The float artifact that everything was measured against.
        candidates: All that were made, in the order of their making.
        published: Folder of each artifact, by the scheme that it is written in.
        refused: Schemes that were asked for and for which nothing was published.
    """

    plan: Plan
    reference: Footprint
    candidates: tuple[Candidate, ...]
    published: dict[str, Path]
    refused: tuple[Scheme, ...]


@dataclass(frozen=True, slots=True)
class _Running:
    """What the candidates of one export have in common."""

    request: Request
    plan: Plan
    workspace: Workspace
    reference: Footprint
    written: Written


@dataclass(frozen=True, slots=True)
class Exporter:
    """What an export works with.

    Attributes:
        store: Where artifacts and what an interrupted export finished lie.
        meter: Shows progress.
        say: Takes one line for the user.
    """

    store: Store
    meter: Meter
    say: Callable[[str], object]

    def run(self, request: Request, made: Plan) -> Outcome:
        """Do what ``made`` says for ``request``.

        Raises:
            ExportError: Disk or memory is too small, a step failed, or the weights are broken.
            ArtifactError: The source cannot be converted.
            MissingDependencyError: A package is not installed.
        """
        plan.refuse_what_cannot_be(made, self.store, request.out)
        if made.pickled:
            self.say(f"{made.pickled[0].name} is a pickle and is not read; --allow-pickle reads it")
        key = recorded.key(request, made)
        try:
            with workspace.opened(self.store, key, self.say) as here:
                if not request.resume:
                    here.drop_all()
                outcome = self._export(request, made, here)
                # Only an end gets here; an interruption keeps what was finished.
                here.discard()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise ExportError(
                f"the disk of {self.store.root} is full; make room and run the same command "
                "again: it goes on where it was"
            ) from error
        made.source.forget()
        return outcome

    def reference(self, request: Request, made: Plan, here: Workspace) -> tuple[Footprint, Written]:
        """Return the float artifact of the source, made now or by an earlier try, and measured.

        Raises:
            ExportError: It cannot be loaded, or its weights are not finite.
            ArtifactError: The source cannot be converted.
        """
        self._check_source(made)

        def convert(out: Path, work: Path) -> Written:
            taken = made.source.path
            if made.pickled and taken.is_dir():
                taken = pickles.view_without(taken, made.pickled, work.parent / taken.name)
            with self.meter(f"convert {made.source.name}", None):
                return made.family.convert(taken, out, self._job(request, work))

        folder, written, earlier = here.build(REFERENCE, _guarded(convert, "converting"))
        if earlier:
            self.say("going on with the float reference of an interrupted export")
        scheme = "f16" if made.family.format == "gguf" else "fp32"
        described = candidates.artifact(made.family, REFERENCE, scheme, folder, written)
        if not described.files:
            raise ArtifactError(f"{made.source.spec}: {made.family.name} wrote no files")
        manifest.write(described, folder)
        found = candidates.footprint(folder, "the float reference", request.threads, self.meter)
        if note := candidates.note_on_weights(found):
            here.drop(REFERENCE)
            raise ArtifactError(f"{made.source.spec}: {note}; such weights cannot be exported")
        return found, written

    def _check_source(self, made: Plan) -> None:
        with self.meter(f"check {made.source.name}", None) as advance:
            seen = child.run(
                "edgevoice.export.soundness:scan",
                {"folder": made.source.path},
                f"looking through {made.source.spec}",
                timeout_s=candidates.LOAD_TIMEOUT_S,
                advance=advance,
            )
        if bad := seen["non_finite"]:
            raise ArtifactError(
                f"{made.source.spec}: NaN or infinity in {bad[0]} ({len(bad)} tensors in all); "
                "such weights cannot be exported"
            )

    def _export(self, request: Request, made: Plan, here: Workspace) -> Outcome:
        reference, written = self.reference(request, made, here)
        running = _Running(request, made, here, reference, written)
        tried: dict[str, Candidate] = {}
        published: dict[str, Path] = {}
        refused: list[Scheme] = []
        for step in made.steps:
            chosen = None
            for candidate in self._chain(running, step, tried):
                if candidate.passed:
                    chosen = candidate
                    break
                self.say(f"{candidate.scheme.name} fails: {candidate.why_not}")
                if request.keep_failed is not None and candidate.folder is not None:
                    described = publish.record(
                        request, made, candidate, reference=reference, missed=(), several=True
                    )
                    kept = publish.place(candidate.folder, described, request.keep_failed)
                    self.say(f"{candidate.scheme.name} is kept in {kept}")
            if chosen is None:
                refused.append(step.scheme)
                self.say(f"{step.scheme.name}: nothing is published")
                continue
            if chosen.scheme != step.scheme:
                self.say(f"{step.scheme.name} falls back to {chosen.scheme.name}")
            if chosen.scheme.name not in published:
                several = len(made.steps) > 1
                earlier = [c for c in tried.values() if not c.passed]
                described = publish.record(
                    request, made, chosen, reference=reference, missed=earlier, several=several
                )
                place = publish.publish(chosen, described, request.out, self.store)
                published[chosen.scheme.name] = place
                self.say(f"{chosen.scheme.name} meets its bounds: {place.name}")
        return Outcome(made, reference, tuple(tried.values()), published, tuple(refused))

    def _chain(
        self, running: _Running, step: Step, tried: dict[str, Candidate]
    ) -> Iterator[Candidate]:
        """Give the candidates of ``step``, each made when it is asked for and once an export."""
        for scheme in (step.scheme, *step.fallbacks):
            if scheme.name not in tried:
                tried[scheme.name] = self._candidate(running, scheme, step.scheme)
            yield tried[scheme.name]

    def _candidate(self, running: _Running, scheme: Scheme, asked: Scheme) -> Candidate:
        request, made, reference = running.request, running.plan, running.reference
        family = made.family

        def quantise(out: Path, work: Path) -> Written:
            if scheme.is_float:
                publish.link_files(reference.folder, out)
                return running.written
            with self.meter(f"quantise to {scheme.name}", None):
                return family.quantise(
                    reference.folder, scheme, family.recipe(scheme.name), out,
                    self._job(request, work),
                )  # fmt: skip

        try:
            folder, done, earlier = running.workspace.build(
                f"candidate-{scheme.name}", _guarded(quantise, f"quantising to {scheme.name}")
            )
        except (ArtifactError, EngineError, ExportError) as error:
            return Candidate(scheme, asked, failure=str(error))
        if earlier:
            self.say(f"going on with the {scheme.name} candidate of an interrupted export")
        engine = {**running.written.engine, **done.engine}
        done = replace(done, engine=engine)
        described = candidates.artifact(
            family, f"candidate-{scheme.name}", scheme.name, folder, done
        )
        manifest.write(described, folder)
        candidate = Candidate(scheme, asked, folder, done, described.files)
        return candidates.measure(
            candidate,
            reference,
            family=family,
            bounds=made.bounds,
            material=request.check_with,
            threads=request.threads,
            meter=self.meter,
        )

    def _job(self, request: Request, work: Path) -> Job:
        return Job(
            work=work,
            calibration=Calibration(request.calibrate),
            threads=request.threads,
            seed=request.seed,
            options=request.options,
            allow_pickle=request.allow_pickle,
            meter=self.meter,
            say=self.say,
        )


def _guarded(make: Callable[[Path, Path], Written], what: str) -> Callable[[Path, Path], Written]:
    """Turn what a library raises into one line; our own errors and a full disk pass."""

    def guarded(out: Path, work: Path) -> Written:
        try:
            written = make(out, work)
        except (EdgevoiceError, MemoryError):
            raise
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise ExportError(f"{what} failed: {error}") from error
        except Exception as error:
            line = " ".join(str(error).split())[:300]
            raise ExportError(
                f"{what} failed: {type(error).__name__}: {line}; --debug shows where"
            ) from error
        (out / FILE_NAME).unlink(missing_ok=True)  # the reference's, copied along
        return written

    return guarded
