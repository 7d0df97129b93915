"""A payment service to watch: an API, and workers that settle what it took, over one PostgreSQL database.

``api`` answers requests, asks the (simulated) payment gateway, and stores transactions as pending; ``worker``
completes or fails them. Errors and latency of the API are settings that ``behaviour`` changes for a while,
so that alerts can be provoked.
"""

API = "transactions_api"
"""Name of the API's job and logs."""
WORKER = "transactions_worker"
"""Name of the worker's job and logs."""
MAX_INSTANCES = 64
"""Most instances of API or worker on one host; each has a port of its own."""
