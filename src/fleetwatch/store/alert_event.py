"""What Alertmanager, a person or this program itself reports about an alert."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from fleetwatch.store.models import Status

_MAX_SEVERITY = 32


def storable(text: str) -> str:
    """Return a text without what JSON can express and a database or a mail cannot: NUL, half surrogates."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


@dataclass(frozen=True)
class AlertEvent:
    """What one report says about one alert, checked and in canonical form."""

    status: Status
    fingerprint: str
    labels: dict[str, str]
    annotations: dict[str, str] = field(default_factory=dict)
    starts_at: datetime | None = None
    """``None`` when the sender did not say; the store then looks for the occurrence that is meant."""
    ends_at: datetime | None = None
    generator_url: str = ""
    external_url: str = ""
    receiver: str = ""
    traceparent: str | None = None

    @property
    def severity(self) -> str:
        """Return the label ``severity`` in lower case, or ``none``."""
        return self.labels.get("severity", "").strip().lower()[:_MAX_SEVERITY] or "none"

    @property
    def summary(self) -> str:
        """Return the best short description there is."""
        for text in (
            self.annotations.get("summary"),
            self.annotations.get("description"),
            self.labels.get("alertname"),
        ):
            if text and text.strip():
                return text.strip()
        return "alert " + ", ".join(f"{name}={value}" for name, value in sorted(self.labels.items()))
