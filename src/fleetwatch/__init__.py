"""The Python services of Fleetwatch."""
