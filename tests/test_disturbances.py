"""The sounds of the benchmarks are many, distinct, and the same every time."""

from collections import Counter

import numpy as np
from disturbances import disturbances


def test_there_are_sixty_sounds_of_seven_kinds_and_no_two_alike() -> None:
    made = disturbances()
    kinds = Counter(sound.kind for sound in made)
    assert len(made) >= 60 and len(kinds) == 7 and min(kinds.values()) >= 6
    assert len({sound.name for sound in made}) == len(made)
    assert len({sound.samples.tobytes() for sound in made}) == len(made)
    for sound in made:
        assert sound.samples.dtype == np.float32
        assert 0.01 < np.abs(sound.samples).max() <= 0.4
        assert 16_000 * 0.1 < len(sound.samples) <= 16_000 * 4


def test_they_are_the_same_every_time() -> None:
    first = disturbances()
    disturbances.cache_clear()
    for one, other in zip(first, disturbances(), strict=True):
        assert one.name == other.name
        assert np.array_equal(one.samples, other.samples)
