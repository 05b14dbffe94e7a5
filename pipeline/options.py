"""Options that pass through to Beam."""

from __future__ import annotations

from typing import NoReturn

from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser

from tfrec.strict import UserError, nearest

DEFAULT_RUNNER = "FnApiRunner"


class _Parser(_BeamArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"Beam: {message}")


def checked(flags: list[str]) -> list[str]:
    """Beam flags, with the runner named.

    Beam's own default tries to download a runner first and differs with the network, so
    FnApiRunner stands in. Its options are checked; other runners know options of their own.

    Raises:
        UserError: an option that neither this command nor Beam knows, or a value that Beam refuses.
    """
    if any(flag == "--runner" or flag.startswith("--runner=") for flag in flags):
        return flags
    parser = _Parser(allow_abbrev=False)
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    unknown = parser.parse_known_args(flags)[1]
    if unknown:
        known = [o for action in parser._actions for o in action.option_strings]
        known += ["--config", "--output", "--until", "--only", "--force", "--on-anomaly"]
        name = unknown[0].split("=")[0]
        hint = nearest(name, known)
        hint = hint if "did you mean" in hint else "; neither --help nor Beam knows it"
        raise UserError(f"unknown option {name}{hint}")
    return [*flags, f"--runner={DEFAULT_RUNNER}"]
