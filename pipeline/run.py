"""The chain of steps: what has to be made anew is made, the rest is kept."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.data_steps import SchemaStep, StatisticsStep, ValidationStep
from pipeline.declaration import Declaration
from pipeline.ingest import Ingest
from pipeline.model_steps import Bless, Evaluate, Push, Train
from pipeline.step import Step, code_digest
from pipeline.transforming import Transform
from pipeline.workspace import ABOUT, About, Workspace, digest_of_values
from tfrec.strict import UserError

STEPS: tuple[type[Step], ...] = (
    Ingest, StatisticsStep, SchemaStep, ValidationStep, Transform, Train, Evaluate, Bless, Push
)  # fmt: skip
DATA_SET = Transform.name  # whose output `python -m tfrec.train` reads

Tell = Callable[[str, str, float, list[str]], None]


def last_step(declaration: Declaration) -> str:
    """The last step that the declaration has something for."""
    later: dict[str, Any] = {
        Push.name: declaration.push, Bless.name: declaration.bless, Evaluate.name: declaration.train
    }  # fmt: skip
    return next((name for name, block in later.items() if block is not None), DATA_SET)


def problems(declaration: Declaration, root: Path) -> list[str]:
    """What of the declaration steps would fail at, but for the events themselves.

    Args:
        declaration: of the data set.
        root: directory of the steps' outputs, which need not be there.
    """
    last = last_step(declaration)
    found = []
    for kind in STEPS:
        try:
            kind(declaration, Workspace(root), PipelineOptions([])).check()
        except UserError as error:
            found.append(str(error))
        if kind.name == last:
            break
    return found


def run(
    declaration: Declaration,
    root: Path,
    options: PipelineOptions,
    *,
    until: str = DATA_SET,
    only: str | None = None,
    force: bool = False,
    tell: Tell = lambda name, state, seconds, lines: None,
) -> dict[str, dict[str, Any]]:
    """Runs the steps of a declaration that have to be run.

    A step is kept as it is where its inputs, its code and what the declaration says to it are the
    same as when it was made. What is made appears whole or not at all.

    Args:
        declaration: of the data set.
        root: directory of the steps' outputs.
        options: of Beam.
        until: last step.
        only: the one step to run, on what the others have made before.
        force: steps are made anew, whether something has changed or not.
        tell: is told of every step: its name, `made` or `kept`, the seconds that it took, and
            lines about its output.

    Returns:
        What the steps have to say of their outputs, by step.

    Raises:
        UserError: for anything that the user can mend; what was there before stays.
    """
    workspace = Workspace(root)
    steps = [kind(declaration, workspace, options) for kind in STEPS]
    names = [step.name for step in steps]
    chosen = [only] if only else names[: names.index(until) + 1]
    steps = [step for step in steps if step.name in chosen]
    for step in steps:
        step.check()
        for name in step.heeds if only else ():
            heeded = STEPS[names.index(name)](declaration, workspace, options)
            if workspace.about(name) and (refusal := heeded.refusal()):
                raise UserError(refusal)
    told = {}
    with workspace.at_work():
        for step in steps:
            clock = time.monotonic()
            state, about = _run(step, force)
            if refusal := step.refusal():
                workspace.note("refused", about, error=refusal)
            else:
                workspace.note(state, about)
            tell(step.name, state, time.monotonic() - clock, step.told(about.counts))
            told[step.name] = about.counts
            if refusal:
                raise UserError(refusal)
    return told


def _run(step: Step, force: bool) -> tuple[str, About]:
    """Makes the output of a step, or keeps it."""
    workspace = step.workspace
    inputs = step.inputs()
    settings, code = digest_of_values(step.settings()), code_digest(step.code)
    key = digest_of_values([step.name, settings, code, inputs])
    if before := step.kept(key, force):
        return "kept", before
    if force and step.leaves:
        shutil.rmtree(workspace.root / step.leaves, ignore_errors=True)
    started, clock = datetime.datetime.now(datetime.UTC), time.monotonic()

    def about(output: str, counts: dict[str, Any]) -> About:
        when, seconds = started.isoformat(timespec="seconds"), time.monotonic() - clock
        return About(
            step.name, key, settings, code, inputs, output, when, round(seconds, 3), counts
        )

    try:
        with workspace.making(step.name, key if step.resumes else None) as place:
            counts = step.make(place)
            made = about(step.digest(place), counts)
            (place / ABOUT).write_text(json.dumps(dataclasses.asdict(made), indent=1) + "\n")
    except Exception as error:
        with contextlib.suppress(OSError):  # a full disk may be what has failed
            workspace.note("failed", about("", {}), error=str(error))
        raise
    return "made", made
