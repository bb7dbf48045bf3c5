"""Several processes, one store: one budget, and a killed one's calls are charged once."""

from __future__ import annotations

from model_calls import check_a_killed_process_is_charged_once, check_two_processes_share_a_budget


def test_two_processes_of_64_callers_never_exceed_one_budget(settings, store):
    check_two_processes_share_a_budget(settings.to_environment(), store)


def test_the_flights_of_a_killed_process_are_charged_once(settings, store):
    check_a_killed_process_is_charged_once(settings.to_environment(), store)
