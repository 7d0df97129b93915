"""What every Fleetwatch service shares: settings, logs, and the health endpoints."""
