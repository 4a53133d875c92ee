"""Makes a folder of cartoon faces with known factors, and a labels file, like a folder anyone might have.

    python examples/faces.py --out out/faces --count 1500
    python examples/faces.py --out out/faces --correlate smiling glasses 0.8
    python examples/faces.py --out out/faces --broken-share 0.33

Writes `<out>/images/<number>.jpg` (64×64 JPEG, quality 92) and `<out>/labels.csv`. A face depends on the seed and its
number alone: a longer run begins with the same faces, and any of them can be drawn again with `factors_of`.
"""

import argparse
import csv
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2

from broken_files import KINDS, spoil
from face_drawing import HAIR, Factors, render_face

BINARY = ("smiling", "glasses", "old")
COLUMNS = ("id", "smiling", "glasses", "hair", "skin", "turn", "light", "old", "smile")
JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True)
class Correlation:
    """Two of BINARY drawn together with correlation `rho`: both are true half the time, and agree with (1 + ρ)/2."""

    first: str
    second: str
    rho: float

    def __post_init__(self) -> None:
        if {self.first, self.second} - set(BINARY) or self.first == self.second:
            raise ValueError(f"cannot correlate {self.first!r} with {self.second!r}: choose two of {', '.join(BINARY)}")
        if not -1 <= self.rho <= 1:
            raise ValueError(f"a correlation of {self.rho} does not exist: choose from -1 to 1")


def factors_of(index: int, *, seed: int = 0, correlation: Correlation | None = None) -> Factors:
    """The factors of face `index`; independent of each other but for `correlation`."""
    rng = random.Random(f"{seed}/{index}")  # a str seeds through SHA-512: the same on every machine
    draws = {name: rng.random() < 0.5 for name in BINARY}
    agree = rng.random()
    if correlation is not None:
        same = agree < (1 + correlation.rho) / 2
        draws[correlation.second] = draws[correlation.first] == same
    # No half-smiles: the label is plain to see.
    strength = rng.uniform(0.3, 1.0)
    return Factors(
        smile=round(strength if draws["smiling"] else -strength, 3),
        glasses=draws["glasses"],
        hair=rng.choice(tuple(HAIR)),
        skin=round(rng.random(), 3),
        turn=round(rng.uniform(-15, 15), 1),
        light=round(rng.uniform(-1, 1), 3),
        old=draws["old"],
        seed=rng.getrandbits(32),
    )


def labels_of(factors: Factors, image_id: str) -> dict[str, str]:
    """One row of labels.csv; every column of COLUMNS as text."""
    values = (
        image_id,
        _word(factors.smile > 0),
        _word(factors.glasses),
        factors.hair,
        str(factors.skin),
        str(factors.turn),
        str(factors.light),
        _word(factors.old),
        str(factors.smile),
    )
    return dict(zip(COLUMNS, values, strict=True))


def write_faces(
    out: Path, *, count: int, seed: int = 0, correlation: Correlation | None = None, broken_share: float = 0.0
) -> dict[str, str]:
    """Writes `count` faces and their labels below `out`. Returns the ids of the broken files with their kind.

    Broken files have labels like the others. A file that holds the same bytes already is left alone, so its modification
    time stands and a second run over the folder finds nothing new.
    """
    if not 0 <= broken_share <= 1:
        raise ValueError(f"--broken-share {broken_share} is not a share: choose from 0 to 1")
    images = out / "images"
    images.mkdir(parents=True, exist_ok=True)
    kinds = dict(_broken(count, share=broken_share, seed=seed))
    broken = {}
    with (out / "labels.csv").open("w", newline="", encoding="utf-8") as lines:
        table = csv.DictWriter(lines, COLUMNS)
        table.writeheader()
        for index in range(count):
            name = f"{index:06d}.jpg"
            factors = factors_of(index, seed=seed, correlation=correlation)
            data = _jpeg(factors)
            if index in kinds:
                broken[name] = kinds[index]
                data = spoil(data, kinds[index])
            file = images / name
            if not file.exists() or file.read_bytes() != data:
                file.write_bytes(data)
            table.writerow(labels_of(factors, name))
    return broken


def _broken(count: int, *, share: float, seed: int) -> Iterator[tuple[int, str]]:
    chosen = random.Random(f"{seed}/broken").sample(range(count), round(share * count))
    for place, index in enumerate(sorted(chosen)):
        yield index, tuple(KINDS)[place % len(KINDS)]


def _jpeg(factors: Factors) -> bytes:
    picture = cv2.cvtColor(render_face(factors), cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()


def _word(value: bool) -> str:
    return "true" if value else "false"


def main() -> None:
    parser = argparse.ArgumentParser(description="Make cartoon faces with known factors and a labels file.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--correlate",
        nargs=3,
        metavar=("FIRST", "SECOND", "RHO"),
        help=f"correlate two of {', '.join(BINARY)}: --correlate smiling glasses 0.8",
    )
    parser.add_argument("--broken-share", type=float, default=0.0, help="share of files to spoil, such as 0.33")
    args = parser.parse_args()
    try:
        correlation = None
        if args.correlate:
            first, second, rho = args.correlate
            correlation = Correlation(first, second, float(rho))
        broken = write_faces(
            args.out, count=args.count, seed=args.seed, correlation=correlation, broken_share=args.broken_share
        )
    except ValueError as error:
        parser.error(str(error))
    spoilt = f", {len(broken)} of them broken" if broken else ""
    print(f"{args.count} files in {args.out / 'images'}{spoilt}; labels in {args.out / 'labels.csv'}")


if __name__ == "__main__":
    main()
