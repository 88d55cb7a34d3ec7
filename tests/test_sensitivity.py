"""The choice under a byte budget, against trying everything."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from edgevoice.quant import sensitivity
from edgevoice.quant.sensitivity import Option, Tensor

options = st.lists(
    st.builds(Option, st.sampled_from("abcdef"), st.integers(1, 40), st.floats(0, 10)),
    min_size=1,
    max_size=4,
    unique_by=lambda o: o.treatment,
)
models = st.lists(options, min_size=1, max_size=4).map(
    lambda found: [Tensor(f"t{i}", "g", tuple(o)) for i, o in enumerate(found)]
)


def every_choice(tensors: list[Tensor]) -> list[tuple[int, float]]:
    picks = itertools.product(*(t.options for t in tensors))
    return [(sum(o.bytes for o in pick), sum(o.loss for o in pick)) for pick in picks]


@given(models, st.integers(0, 160))
def test_it_fits_and_nothing_as_small_is_much_better(tensors: list[Tensor], budget: int) -> None:
    chosen = sensitivity.choose(tensors, budget)
    assert chosen == sensitivity.choose(tensors, budget)
    size, loss = sensitivity.total(tensors, chosen)
    every = every_choice(tensors)
    smallest = min(size for size, _ in every)
    assert size <= max(budget, smallest)
    # The greedy walk is off the optimum by less than the one step that it could not take.
    largest_step = max(max(o.loss for o in t.options) for t in tensors)
    best = min((loss for size, loss in every if size <= max(budget, smallest)))
    assert loss <= best + largest_step + 1e-9


@given(models)
def test_with_room_for_all_each_gets_its_best(tensors: list[Tensor]) -> None:
    _, loss = sensitivity.total(tensors, sensitivity.choose(tensors, 10_000))
    assert abs(loss - sum(min(o.loss for o in t.options) for t in tensors)) < 1e-9


def test_bytes_go_where_the_loss_is() -> None:
    def tensor(name: str, loss: float) -> Tensor:
        return Tensor(name, name, (Option("small", 10, loss), Option("large", 20, loss / 10)))

    tensors = [tensor("calm", 1.0), tensor("touchy", 5.0), tensor("dull", 0.1)]
    chosen = sensitivity.choose(tensors, 40)
    assert chosen == {"calm": "small", "touchy": "large", "dull": "small"}


def test_a_groups_loss_is_shared_by_its_tensors_errors() -> None:
    asked: list[str] = []

    def lose(group: str) -> float:
        asked.append(group)
        return {"a": 0.6, "b": -1e-9}[group]

    found = sensitivity.measure({"a": {"x": 0.1, "y": 0.2}, "b": {"z": 0.5}}, lose)
    assert asked == ["a", "b"]
    assert abs(found["a"] - 2.0) < 1e-9
    assert found["b"] == 0.0
