"""A field that others write is taken back once, and then left to them for an hour."""

from agent.cluster.truce import TRUCE, Truce


def test_what_somebody_took_is_taken_back_once() -> None:
    truce = Truce(lambda: 0.0)
    assert truce.may_take_back("label", "kubectl-label")
    assert not truce.may_take_back("label")
    assert truce.is_lost("label")
    assert [(c.what, c.who, c.lost) for c in truce.contests] == [("label", "kubectl-label", True)]


def test_one_field_does_not_speak_for_another() -> None:
    truce = Truce(lambda: 0.0)
    truce.may_take_back("label")
    assert truce.may_take_back("condition")
    assert not truce.is_lost("condition")


def test_a_truce_ends_and_the_next_try_is_made() -> None:
    now = [0.0]
    truce = Truce(lambda: now[0])
    truce.may_take_back("label")
    truce.may_take_back("label")
    now[0] = TRUCE + 1
    assert not truce.is_lost("label")
    assert not truce.contests
    assert truce.may_take_back("label")
