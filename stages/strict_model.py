"""Base of all configuration classes: a frozen pydantic model that rejects unknown keys."""

from __future__ import annotations

from pydantic import BaseModel


class StrictModel(BaseModel, frozen=True, extra="forbid", protected_namespaces=()):
    """Immutable and hashable; a key it does not know is an error."""
