from __future__ import annotations

from fleetwatch.receiver.settings import AlertReceiverSettings


def test_a_recipient_named_twice_counts_once() -> None:
    settings = AlertReceiverSettings.model_validate(
        {"sender": "a@example.org", "recipients": ["ops@example.org", "OPS@example.org", "b@example.org"]}
    )
    assert settings.recipients == ["OPS@example.org", "b@example.org"]
