"""Requests to HTTP servers that a spec names: keys, limits, retries; for judges and for a teacher behind a server."""
