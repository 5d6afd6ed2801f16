"""Numbers of keys and paths, whether they wait to be sorted in or not."""

import random
from pathlib import Path

import pytest

from open_r1.data import key_table
from open_r1.data.key_table import KeyTable, References, key_of


@pytest.fixture(params=[3, 2**12])
def unsorted_keys(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_table, "_UNSORTED", request.param)


@pytest.mark.usefixtures("unsorted_keys")
def test_a_key_keeps_the_number_of_its_first_time() -> None:
    rng = random.Random(0)
    keys = [rng.choice((0, 1, 2**63, 2**64 - 1, rng.getrandbits(64))) for _ in range(300)]
    table, expected = KeyTable(), {}
    assert table.find(0) is None
    for key in keys:
        assert table.add(key) == expected.setdefault(key, len(expected))
        assert len(table) == len(expected)
    assert [table.find(key) for key in keys] == [expected[key] for key in keys]
    assert table.find(12345) is None


@pytest.mark.usefixtures("unsorted_keys")
def test_paths_come_back_by_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_table, "_BUFFER", 40)
    references = References(tmp_path / "references.txt")
    names = [f"Bild {number % 7}/ä {number % 11}.png" for number in range(200)]
    numbers = [references.add(name) for name in names]
    assert len(references) == 77 == len(set(names))
    assert list(references.texts(numbers)) == names
    assert references.number(names[-1]) == numbers[-1]
    assert references.add("one more") == 77
    assert list(references.texts([77, 0])) == ["one more", names[0]]
    with pytest.raises(KeyError):
        references.number("Bild 8/a.png")


def test_texts_that_are_no_unicode_have_keys_too() -> None:
    assert len({key_of(text) for text in ("\ud800", "\ud801", "\udcff", "?", "")}) == 5
    assert key_of("abc") == 0xBA7816BF8F01CFEA, "the first 64 bits of SHA-256's published example"
