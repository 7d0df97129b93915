"""The alert receiver: takes Alertmanager's webhook, commits it to disk, and only then answers 2xx."""
