"""Warnings of alignment terms that add nothing."""

from __future__ import annotations

from mta_framework.training.training_warnings import training_warnings


def test_a_term_that_was_0_in_every_entry_is_named_in_the_same_words_each_time():
    history = [{"step": 10, "loss": 1.0, "dsa": 0.0, "hid": 0.0}, {"eval_dsa": 0.2, "step": 10}]
    first = training_warnings(history, ("dsa", "hid"))
    assert [message.partition(" has been 0")[0] for message in first] == [
        "The alignment term 'dsa'",
        "The alignment term 'hid'",
    ]
    history.append({"step": 20, "loss": 1.0, "dsa": 0.0, "hid": 1e-9})
    assert training_warnings(history, ("dsa", "hid")) == first[:1]


def test_nothing_is_said_of_terms_that_were_not_logged_or_belong_to_the_base_loss():
    assert training_warnings([], ("dsa",)) == []
    assert training_warnings([{"step": 1, "kl": 0.0}], ("dsa",)) == []
