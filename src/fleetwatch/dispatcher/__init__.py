"""The dispatcher: takes queued notifications from the store and delivers them, with retries."""
