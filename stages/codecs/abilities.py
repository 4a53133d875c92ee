"""What codecs can do: names that codecs give in `can`, and what each family of ours has. Loads no torch, so that a plan can ask."""

from typing import Literal

Ability = Literal["encode", "decode", "gradient", "layers", "sample", "codes"]
Abilities = frozenset[Ability]

EXACT: Abilities = frozenset({"encode", "decode", "gradient"})
DISCRETE: Abilities = frozenset({"encode", "decode", "codes"})
AUTOENCODER: Abilities = EXACT | {"layers"}
VARIATIONAL: Abilities = AUTOENCODER | {"sample"}
