"""Cases of the models that read histories."""

from __future__ import annotations

from tests.models.case import Case

HISTORY_CASES: dict[str, Case] = {}
