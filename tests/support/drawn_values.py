"""What Hypothesis draws: texts, option lists, completions, values of JSON; and how many."""

from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from open_r1.common.errors import UserError

quick = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
few = settings(quick, max_examples=40)


# Half a surrogate pair is text that json can hold and UTF-8 cannot.
signs = st.characters(codec=None) | st.sampled_from(list("ABCDabcd.,:;)(][}{ \n\t<>/\\$*_'\"\ud800\u0130\u0301"))
texts = st.text(signs, max_size=40)
option_lists = st.lists(st.text(signs, min_size=1, max_size=25), min_size=2, max_size=6)
tags = ("<think>", "</think>", "<answer>", "</answer>", "</ANSWER >", "\\boxed{", "}", "**", "<|im_end|>", "\n", " ")
claims = ("the answer is ", "answer: ", "not ", "or ", "wait, ", "A", "B", "C", "D", "c)", "(b)", "A.", "(", "答案是")
pieces = st.sampled_from([*tags, *claims])
completions = st.lists(pieces | texts, max_size=14).map("".join)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def refusal(call: Callable[[], object]) -> str:
    """The one line that a call ends in; '' where it succeeds."""
    try:
        call()
    except UserError as error:
        return str(error)
    return ""
