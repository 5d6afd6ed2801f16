"""Runs to which something else was shown: no image, noise, another question's image, or options in another order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from open_r1.evaluation.comparing.joined_sets import checkpoint_of
from open_r1.evaluation.comparing.pairs import Comparison
from open_r1.evaluation.comparing.run_names import TELLING, entry
from open_r1.evaluation.comparing.scored_runs import Scored, share_a_set

_IMAGES = {"none": "no image", "noise": "noise in place of the image", "shuffled": "another question's image"}
_OPTIONS = {"shuffled": "options in another order"}
_SETTINGS = ("mode", "prompt_name", "samples", "temperature", "backend", "max_new_tokens")


@dataclass(frozen=True)
class Change:
    """A run to which something else was shown, and the ordinary run of the same checkpoint on the same questions."""

    comparison: Comparison  # the changed run minus the ordinary one: what is lost is negative
    what: str
    """What was shown instead: `no image`, `options in another order`."""

    @property
    def ordinary(self) -> Scored:
        return self.comparison.first

    @property
    def changed(self) -> Scored:
        return self.comparison.second

    @property
    def title(self) -> str:
        """`after: no image minus as usual`."""
        return f"{self.ordinary.name}: {self.what} minus as usual"


def what_changed(run: Scored) -> str:
    """What was shown to a run instead; blank for an ordinary run."""
    image, options = run.shown_as
    parts = [] if image == TELLING["image"] else [_IMAGES.get(image, f"image {image}")]
    parts += [] if options == TELLING["options"] else [_OPTIONS.get(options, f"options {options}")]
    return " and ".join(parts)


def changes(scored: Sequence[Scored]) -> list[Change]:
    """Each run to which something else was shown with the first ordinary run that it belongs to; others are left out.

    They belong together if the same checkpoint answered with the same settings and at least one question is in both.
    """
    matched = []
    for run in scored:
        if not run.perturbed:
            continue
        for ordinary in scored:
            if not ordinary.perturbed and _belong_together(ordinary, run):
                matched.append(Change(Comparison(ordinary, run), what_changed(run)))
                break
    return matched


def _belong_together(ordinary: Scored, changed: Scored) -> bool:
    def key(run: Scored) -> tuple[Any, ...]:
        return checkpoint_of(run.file.manifest), *(entry(run.file.manifest, name) for name in _SETTINGS)

    if checkpoint_of(ordinary.file.manifest) is None or key(ordinary) != key(changed):
        return False
    answered = {result.id for result in ordinary.file.results if result.outcome is not None}
    return share_a_set(ordinary.files, changed.files) and any(
        result.id in answered and result.outcome is not None for result in changed.file.results
    )
