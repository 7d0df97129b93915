"""What receiver and dispatcher agree on: their settings, the channels, and which alert goes where."""
