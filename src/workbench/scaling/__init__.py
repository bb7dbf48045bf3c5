"""Scaling laws, forecasts and energy."""
