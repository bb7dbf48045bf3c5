"""The only way to spend on a model: route, look in the cache, reserve, send, settle."""
