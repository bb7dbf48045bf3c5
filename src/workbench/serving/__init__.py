"""The sanitizer as a service: batching, keys, quotas, metrics, and a guard before model APIs."""
