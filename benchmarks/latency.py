"""What serving adds to the bare call of a model, and what batches give, in short.

    python -m benchmarks.latency --export runs/wide_deep/export

`python -m benchmarks` compares the ratios; benchmarks.serving has all of it. Rounds of all kinds
follow one another, and of each the best one counts: whatever else the machine does makes it worse.
"""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.serving import (
    FULL,
    Asked,
    Running,
    a_request,
    bare,
    bare_times,
    by_grpc,
    closed,
    running,
    warm,
)
from tfrec.export import newest_version

CLIENTS = 32  # of which each asks again as soon as it has an answer
ROUNDS = 3


@click.command()
@click.option("--export", required=True, type=Path, help="Directory of a ranking model's versions.")
@click.option("--seconds", default=1.0, show_default=True, help="Of each measurement.")
def main(export: Path, seconds: float) -> None:
    """Print p50 in milliseconds, bare and by gRPC, and requests/s, by themselves and in batches."""
    version = newest_version(export)
    if version is None:
        raise click.ClickException(f"{export} has no version of a model")
    asked = Asked("predict", "predict", a_request(version, "predict"))
    with running(export, None) as alone, running(export, FULL) as batched:
        click.echo(json.dumps(asyncio.run(_measured(version, asked, alone, batched, seconds))))


async def _measured(
    version: Path, asked: Asked, alone: Running, batched: Running, seconds: float
) -> dict[str, float]:
    call, medians, rates = bare(version, asked), dict[str, float](), dict[str, float]()
    gc.freeze()  # the clients are not to stop while the collector walks through TensorFlow

    def median(name: str, times: Any) -> None:
        medians[name] = min(medians.get(name, np.inf), 1000 * float(np.median(times)))

    async with by_grpc(alone, asked) as ask_alone, by_grpc(batched, asked) as ask_batched:
        await warm(ask_alone)
        await warm(ask_batched)
        for _ in range(ROUNDS):
            median("bare_ms", bare_times(call, seconds))
            times, *_ = await closed(alone, [ask_alone], seconds)
            median("grpc_ms", times)
            for name, server, ask in (
                ("alone_per_second", alone, ask_alone),
                ("batched_per_second", batched, ask_batched),
            ):
                _, rate, _ = await closed(server, [ask] * CLIENTS, seconds)
                rates[name] = max(rates.get(name, 0.0), rate)
    return medians | rates


if __name__ == "__main__":
    main()
