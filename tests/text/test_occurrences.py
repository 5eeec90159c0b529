"""Which occurrence of an answer answers the question: whole words first, then the words of its sentence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import InputError
from glassformer.text.questions import best_occurrence


@pytest.mark.parametrize(
    ("context", "answer", "question", "start"),
    [
        ("the one", "one", "", 4),
        ("1905 9 9", "9", "", 5),
        ("a9b c9", "9", "", 1),  # no whole word: all count
        ("9x, x9, (9)", "9", "", 9),
        ("Dogs bark. Cats meow at dogs. Dogs bark at cats.", "Dogs", "Who will bark at cats?", 30),
        ("It ran. It ran.", "ran", "What did it?", 3),  # function words alone: the first
        ("Red cat. Blue CAT.", "a", "", 5),
        ("It was 5 km. It cost 5 francs.", "5", "How many FRANCS?", 21),
        # No sentence ends after an initial or a title, nor before a small letter.
        ("Air 77 ran. Sea by J. Row had 77.", "77", "sea?", 30),
        ("Air 77 ran. Sea by Dr. Row had 77.", "77", "sea?", 31),
        ("Air 77 ran. Sea vol. two had 77.", "77", "sea?", 29),
        ("77 ran\nsea 77", "77", "sea?", 11),
        ("Sea air sky! Cat ran. Now Cat saw sea.", "Cat", "sea air sky?", 26),
        ("Cat air. Sea! Cat sat.", "Cat", "sea?", 0),
        ('Some 4 said "no." Others 4 said yes.', "4", "Which others?", 25),
        ("Big and 4! Small? 4 is small.", "4", "What is small?", 18),
        # An answer over two sentences has the words of both.
        ("Ab xx. Yy sea. Air is xx. Yy sea.", "xx. Yy", "sea air?", 22),
        ("Xx. Yy. Xx. Yy sea and air. Xx. Yy sea.", "Xx. Yy", "sea air?", 8),
    ],
)
def test_the_best_occurrence(context, answer, question, start):
    assert best_occurrence(context, answer, question) == start


def test_an_answer_without_an_occurrence():
    with pytest.raises(InputError, match=r"^the answer 'no' is not in its context\.$"):
        best_occurrence("yes", "no", "what?")


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "ab", "a.", "B", "\n", "c a"]), min_size=1, max_size=12), st.data())
def test_the_best_occurrence_is_one_and_a_whole_word_if_any_is(words, data):
    context = " ".join(words)
    answer = data.draw(st.sampled_from(["a", "b", "ab", "c", "c a"]))
    question = data.draw(st.sampled_from(["", "b c", "ab", "A?"]))
    if answer not in context:
        return
    start = best_occurrence(context, answer, question)
    assert context.startswith(answer, start)
    whole = [
        place
        for place in range(len(context))
        if context.startswith(answer, place)
        and not context[place - 1 : place].isalnum()
        and not context[place + len(answer) : place + len(answer) + 1].isalnum()
    ]
    assert not whole or start in whole
    if not question:
        assert start == (whole or [context.index(answer)])[0]
