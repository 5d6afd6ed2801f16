"""The reward of a judge model: whether it takes the answer for the expected one."""

from collections.abc import Sequence
from typing import Any

from open_r1.common.errors import UserError
from open_r1.grading.free.same_answer import is_any
from open_r1.grading.judge.judgements import Question, Verdict, judge_of
from open_r1.rewards.answers import expected_answers, stated_answer
from open_r1.rewards.settings import Completion, Reward, RewardSettings, with_name
from open_r1.vocabulary.answer_types import AnswerType


def judge_reward(settings: RewardSettings) -> Reward:
    """A reward of 1.0 where the judge takes an answer for the expected one in both orders, else 0.0.

    None for questions of choice, and for an answer on which no judgement could be had: the endpoint failed or answered
    nonsense. These are counted, and a line says how many there were. An answer that is a reference by rule needs no
    judge, nor does a completion without an answer.

    Raises:
        UserError: `--judge` is missing or no address.
    """
    if not settings.judge:
        raise UserError("--reward_funcs judge needs a judge model; name one with --judge URL MODEL")
    judge = judge_of(settings.judge, settings.judge_cache)

    def reward(completions: Sequence[Completion], **columns: Any) -> list[float | None]:
        values: list[float | None] = [None] * len(completions)
        places, questions = [], []
        rows = zip(completions, columns["problem"], expected_answers(**columns), strict=True)
        for place, (completion, problem, expected) in enumerate(rows):
            if expected.answer_type is AnswerType.CHOICE:
                continue
            answer = stated_answer(completion)
            if not answer or is_any(answer, expected.references):
                values[place] = float(bool(answer))
                continue
            places.append(place)
            questions.append(Question(problem, answer, " or ".join(expected.references)))
        missing = 0
        for place, verdict in zip(places, judge.verdicts(questions), strict=True):
            if verdict in (Verdict.FAILED, Verdict.NONSENSE):
                missing += 1
            else:
                values[place] = float(verdict is Verdict.SAME)
        if missing:
            reason = judge.last_error or "replies that are neither SAME nor DIFFERENT"
            total = judge.counts[Verdict.FAILED] + judge.counts[Verdict.NONSENSE]
            print(
                f"judge: no judgement on {missing} of {len(questions)} answers ({reason}); they are rewarded by the "
                f"other rewards alone; {total} so far",
                flush=True,
            )
        return values

    return with_name(reward, "judge_reward")
