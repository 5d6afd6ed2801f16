"""Riddles: made-up patients with one telling sign each, as multiple-choice questions, for the text demo and the tests.

Six topics, four answers each, two or three signs per answer. A question names a patient (age, sex, place), one sign
among things that tell nothing, and offers the topic's four answers. It looks like an examination about as much as a
phantom looks like a scan, and says nothing about medicine.

Two things make riddles easier than real questions, and every figure made from them must say so: a topic always offers
the same four answers, of one word each, and the signs of the test were all seen in training, on other patients. Three
things keep them honest: each question offers the answers in an order of its own, no question is on both sides, and
answers are balanced, so that without reading the best guess is a quarter.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from open_r1.common.atomic_files import read_manifest
from open_r1.common.errors import UserError, run_command
from open_r1.data.text.prepare import report_lines, write_set
from open_r1.data.text.questions import TextQuestion
from open_r1.grading.problems import LETTERS
from open_r1_testbed.demo_steps import read_set_flags

SOURCE = "Riddles"
OPTIONS = 4


@dataclass(frozen=True)
class Topic:
    """What is asked, and the signs that give each answer away."""

    name: str
    question: str
    signs: dict[str, tuple[str, ...]]


TOPICS = (
    Topic(
        "chest",
        "What is most likely wrong in the chest?",
        {
            "pneumonia": ("rusty sputum", "fever with shaking chills", "crackles over one lobe"),
            "asthma": ("a wheeze at night", "a wheeze after running", "tightness near cats"),
            "embolism": ("a swollen calf after a long flight", "pain on breathing after surgery"),
            "pneumothorax": ("no breath sounds on one side", "a sudden stab and a hollow chest"),
        },
    ),
    Topic(
        "vitamins",
        "Which vitamin is lacking?",
        {
            "retinol": ("night blindness", "dry eyes with foamy spots"),
            "cobalamin": ("a smooth sore tongue", "numb feet and large red cells"),
            "ascorbate": ("bleeding gums", "corkscrew hairs", "wounds that reopen"),
            "calciferol": ("bowed legs", "soft bones", "beads along the ribs"),
        },
    ),
    Topic(
        "nerves",
        "Which nerve is injured?",
        {
            "radial": ("a dropped wrist", "a numb back of the thumb"),
            "median": ("a wasted ball of the thumb", "tingling thumb and index at night"),
            "ulnar": ("a clawed little finger", "a numb little finger"),
            "peroneal": ("a foot that slaps the floor", "a foot that cannot be lifted"),
        },
    ),
    Topic(
        "glands",
        "Which gland works too much?",
        {
            "thyroid": ("staring eyes and a fast pulse", "sweating in a cold room"),
            "adrenal": ("a moon face and purple stripes", "a hump between the shoulders"),
            "pituitary": ("shoes that have become too small", "a growing jaw"),
            "parathyroid": ("kidney stones and aching bones", "much calcium in the blood"),
        },
    ),
    Topic(
        "antidotes",
        "Which antidote is given first?",
        {
            "naloxone": ("pinpoint pupils and slow breath", "a syringe in the arm"),
            "atropine": ("tears, drool and a garden sprayer", "sweat and cramps after crop dusting"),
            "oxygen": ("a headache beside a coal stove", "a whole family dizzy near a heater"),
            "acetylcysteine": ("an empty box of paracetamol", "a rising liver enzyme after pain pills"),
        },
    ),
    Topic(
        "valves",
        "Which heart valve is at fault?",
        {
            "aortic": ("a harsh murmur into the neck", "fainting on the stairs"),
            "mitral": ("a murmur into the armpit", "a rumble at the apex"),
            "tricuspid": ("a pulsing liver", "waves in the neck veins"),
            "pulmonary": ("a murmur since birth at the upper left", "a wide split second sound"),
        },
    ),
)

SEXES = ("man", "woman")
PLACES = ("comes to the clinic", "is seen at home", "is brought in by a friend", "calls the ward")
ASIDES = ("The pulse is regular.", "Nobody else is ill.", "There was a similar day last year.", "Sleep is good.")
AGES = range(20, 90, 2)  # of the patients in prepared sets
OTHER_AGES = range(21, 90, 2)  # of those that the demo's base learns from, who are never among the former


def riddle(topic: Topic, answer: int, rng: random.Random, ages: range = AGES) -> TextQuestion:
    """A question of `topic` whose right option is its answer number `answer`; everything else is drawn."""
    right = list(topic.signs)[answer]
    sign = rng.choice(topic.signs[right])
    patient = f"A {rng.choice(ages)}-year-old {rng.choice(SEXES)} {rng.choice(PLACES)} with {sign}."
    question = f"{patient} {rng.choice(ASIDES)} {topic.question}"
    options = tuple(rng.sample(list(topic.signs), OPTIONS))
    return TextQuestion(question, options, LETTERS[options.index(right)], SOURCE, topic.name)


def sample_riddles(
    count: int, seed: int, excluded: frozenset[str] = frozenset(), ages: range = AGES
) -> list[TextQuestion]:
    """`count` different questions, topics and answers in turn, in shuffled order; none whose id is `excluded`."""
    rng = random.Random(f"riddles {seed}")
    used_ids: set[str] = set(excluded)
    riddles = []
    for topic, answer in _turns(count):
        question = riddle(topic, answer, rng, ages)
        while question.id in used_ids:  # there are over 2,000 patients for every answer
            question = riddle(topic, answer, rng, ages)
        used_ids.add(question.id)
        riddles.append(question)
    rng.shuffle(riddles)
    return riddles


def _turns(count: int) -> Iterator[tuple[Topic, int]]:
    for number in range(count):
        yield TOPICS[number % len(TOPICS)], number // len(TOPICS) % OPTIONS


def make_riddles(folder: Path | str, train: int = 960, test: int = 480, seed: int = 0) -> Path:
    """Write a prepared set of riddles to `folder`, as `scripts/data_prepare.py` writes real ones; returns it.

    Raises:
        UserError: counts that are no multiple of 24 (topics x answers), so answers could not be balanced, or a folder
            that holds something.
    """
    even = len(TOPICS) * OPTIONS
    for name, count in (("train", train), ("test", test)):
        if count < even or count % even:
            raise UserError(f"--{name} {count} must be a multiple of {even}, so that every answer is as frequent")
    held_out = sample_riddles(test, seed=2 * seed + 1)
    training = sample_riddles(train, seed=2 * seed, excluded=frozenset(question.id for question in held_out))
    write_set(Path(folder), {"train": training, "test": held_out}, {}, {}, {"riddles": {"seed": seed}})
    return Path(folder)


def main() -> None:
    """`python -m open_r1_testbed.riddles --output_dir DIR`."""
    flags = read_set_flags("Make up riddles: multiple-choice questions without images.", "questions", 960, 480)
    folder = make_riddles(flags.output_dir, flags.train, flags.test, flags.seed)
    manifest = read_manifest(folder)
    assert manifest is not None
    print("\n".join(report_lines(folder, manifest)))


if __name__ == "__main__":
    run_command(main)
