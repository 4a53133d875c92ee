"""What a page says of directions: why one has no vector, how composed ones stand to the old, and no more rows than one reads."""

from schemas.measurements import Measurement
from stages.directions.direction import MEANING, FitStatus
from stages.report.components import components
from stages.report.compose import compose
from stages.report.data import DirectionEvidence
from stages.report.sections import SHOWN, directions


def test_a_direction_without_a_vector_says_why_and_what_helps() -> None:
    why = MEANING[FitStatus.SEPARABLE]
    page = str(directions([DirectionEvidence("red", "logistic", "separable", message=why)]))
    assert f"separable: {why}" in page and "set l2" in page
    good = str(directions([DirectionEvidence("red", "ols", "ok", message="of 3 images")]))
    assert "of 3 images" not in good, "a good direction has its numbers"


def test_directions_beyond_the_first_are_behind_a_click() -> None:
    many = [DirectionEvidence(f"d{i}.", "ols", "ok") for i in range(SHOWN + 7)]
    shown, _, hidden = str(directions(many)).partition("<details>")
    assert "7 more directions" in hidden
    assert f"d{SHOWN - 1}." in shown and f"d{SHOWN}." not in shown and f"d{SHOWN + 6}." in hidden
    assert "<details>" not in str(directions(many[:SHOWN]))


COSINES = {("c.a", "a"): 0.99, ("c.a", "b"): -5.6e-17, ("c.b", "a"): 0.062, ("c.b", "b"): 0.99}


def test_composed_directions_are_a_map_of_cosines_in_which_rounding_is_nothing() -> None:
    rows = [Measurement("condition", 1.13, n=2), Measurement("rows", 300, n=300), Measurement("non_finite", 2, n=300)]
    rows += [Measurement("cosine", value, new, old) for (new, old), value in COSINES.items()]
    page = str(compose(rows))
    assert "e−17" not in page and "10⁻¹⁷" not in page
    assert "0.062" in page and "Condition 1.13" in page and "300 rows, 2 non-finite ones left out" in page


def test_directions_that_depend_on_one_another_are_told_in_place_of_the_map() -> None:
    page = str(compose([Measurement("condition", status="collinear", message="a, b depend on one another")]))
    assert "collinear: a, b depend on one another" in page and "New directions beside the old" not in page


def test_directions_of_the_weights_do_not_claim_to_come_from_rows() -> None:
    rows = [Measurement("rows", 300, n=300)]
    of_weights = str(components([Measurement("weight_energy", 2.0, "sefa.0"), *rows]))
    assert "From 300 rows" not in of_weights and "No row takes part" in of_weights
    assert "From 300 rows" in str(components([Measurement("explained_variance", 2.0, "pca.0"), *rows]))
