"""What a step of the pipeline is."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.declaration import Declaration
from pipeline.workspace import ABOUT, About, Workspace, digest_of_files, digest_of_values
from tfrec.strict import UserError

ROOT = Path(__file__).parents[1]
DATA_CODE = ("pipeline/*.py", "tfrec/features.py", "tfrec/crosses.py", "tfrec/keys.py")
MODEL_CODE = ("tfrec/**/*.py",)
LIBRARIES = ("apache-beam", "pyarrow", "tensorflow", "tensorflow-transform", "tf-keras", "tfx-bsl")


class Step(ABC):
    """One step: makes a directory of what other steps have made.

    Args:
        declaration: of the data set, and of what is done with it.
        workspace: where steps' outputs are.
        options: of Beam.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    heeds: ClassVar[tuple[str, ...]] = ()  # may refuse what it would be made of
    code: ClassVar[tuple[str, ...]] = DATA_CODE
    leaves: ClassVar[str | None] = None  # directory beside the outputs, for later runs to be faster
    resumes: ClassVar[bool] = False  # goes on in what a run that was ended has left

    def __init__(
        self, declaration: Declaration, workspace: Workspace, options: PipelineOptions
    ) -> None:
        self.declaration, self.workspace, self.options = declaration, workspace, options

    @property
    def output(self) -> Path:
        """Where its output is, or will be."""
        return self.workspace.directory(self.name)

    def input(self, step: str) -> Path:
        """Output of another step.

        Raises:
            UserError: it has not been made.
        """
        if self.workspace.about(step) is None:
            raise UserError(
                f"{self.name} needs the output of {step}, which is not in {self.workspace.root}; "
                f"make it with --until {self.name}"
            )
        return self.workspace.directory(step)

    @abstractmethod
    def settings(self) -> Any:
        """What of the configuration decides the output, as plain values."""

    def check(self) -> None:
        """Looks for what would fail when the step's turn comes, before any long work.

        Raises:
            UserError: something is missing in the declaration, or a file that it names.
        """
        self.settings()

    def sources(self) -> dict[str, str]:
        """Digests of inputs that no step makes, by name."""
        return {}

    def inputs(self) -> dict[str, str]:
        """Digests of all inputs, by name.

        Raises:
            UserError: one is not there.
        """
        of_steps = {}
        for step in self.needs:
            self.input(step)
            about = self.workspace.about(step)
            assert about
            of_steps[step] = about.output
        return {**of_steps, **self.sources()}

    def kept(self, key: str, force: bool) -> About | None:
        """How the output was made, if it is as good as what would be made now.

        Args:
            key: of what would be made.
            force: it is to be made anew all the same.
        """
        about = self.workspace.about(self.name)
        return about if about and about.key == key and not force else None

    @abstractmethod
    def make(self, place: Path) -> dict[str, Any]:
        """Makes the output.

        Args:
            place: an empty directory, which takes the place of the output at the end.

        Returns:
            What there is to say of it, as plain values.

        Raises:
            UserError: for anything that the user can mend.
        """

    def digest(self, place: Path) -> str:
        """Digest of the output."""
        files = (p for p in place.rglob("*") if p.is_file() and p.name != ABOUT)
        return digest_of_files(files, place)

    def refusal(self) -> str | None:
        """Why the steps behind may not go on with the output; None where they may."""
        return None

    def told(self, counts: dict[str, Any]) -> list[str]:
        """What a person is told of the output, in lines."""
        return [", ".join(f"{name} {value}" for name, value in counts.items())]


@functools.cache
def code_digest(patterns: tuple[str, ...]) -> str:
    """Digest of the program's files and of its libraries' versions."""
    files = [path for pattern in patterns for path in ROOT.glob(pattern)]
    versions = {name: metadata.version(name) for name in LIBRARIES}
    return digest_of_values([digest_of_files(files, ROOT), versions])
