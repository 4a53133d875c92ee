"""The section of a diagnosis: flags first, pictures drawn from the details, nothing from outside, all text escaped."""

import json
import re

from schemas.measurements import Measurement
from stages.report.data import Measured
from stages.report.diagnosis import diagnosis
from stages.report.measured import measured

NORM = {"edges": [0.0, 1.0, 2.0, 3.0], "rows": [0, 5, 2], "expected": [1.0, 4.0, 2.0], "root_d": 1.7}
MAP = {"codes": [[4, 0], [0, 9]], "draws": [[4, 15], [0, 6]], "edges": [[0, 1, 2]] * 2,
       "worst": [{"draw": 1, "gap": 3.5, "nearest": "<b>.png"}]}  # fmt: skip
ROWS = (
    Measurement(
        "precision", 0.2, target="prior", low=0.18, high=0.22, n=100, threshold=0.49, status="holes", message="20 % <i>"
    ),
    Measurement("norm", 1.5, n=7, detail=json.dumps(NORM)),
    Measurement("kl", 3.0, n=7, unit="nats", threshold=0.03, detail=json.dumps({"per_dimension": [2.0, 1.0, 0.0]})),
    Measurement("collapsed_dimensions", 1, n=3, threshold=0.3),
    Measurement("hole_cells", 1, target="prior", n=3, message="among 3 cells", detail=json.dumps(MAP)),
)


def test_flags_come_first_and_say_why() -> None:
    page = measured(Measured("diagnose", "diagnose", ROWS))
    assert page.index("holes · precision") < page.index("How far codes lie")
    assert "20 % &lt;i&gt;" in page and "<i>" not in page and "&lt;b&gt;.png" in page
    assert "No flag: 2 numbers" in diagnosis(ROWS[1:])


def test_charts_show_what_was_measured() -> None:
    page = diagnosis(ROWS)
    assert "√d = 1.7" in page and "expected of N(0, I)" in page
    assert "1 of 3 collapsed" in page and page.count("<figure") == 3
    holes = re.findall(r'<rect[^>]*class="hole"', page)
    assert len(holes) == 1, "the cell with draws and no codes"
    heights = [float(h) for h in re.findall(r'height="([\d.]+)" class="part"', page)]
    assert heights and all(0 <= h <= 300 for h in heights)


def test_a_section_without_details_is_still_a_table() -> None:
    page = diagnosis(
        [Measurement("rows", 8, n=8), Measurement("aggregate", status="too_few_points", message="8 codes.")]
    )
    assert "<figure" not in page and "too few points" in page and "8 codes." in page


def test_variances_stand_in_where_there_is_no_posterior() -> None:
    units = Measurement("active_units", 2, low=2, high=2, n=9, threshold=0.01,
                        detail=json.dumps({"variances": [1.0, 0.5, 0.001], "curve": []}))  # fmt: skip
    page = diagnosis([units])
    assert "How much each coordinate varies" in page and page.count('class="under"') == 1
