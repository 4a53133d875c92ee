"""What a strip of an interpolation shows, in words, and the formula behind it one click away."""

from collections.abc import Mapping
from typing import Any

from stages.report.data import StripTable
from stages.report.markup import Markup, tag

SAID = {
    "lerp": "In a straight line.",
    "slerp": "Along the great circle; the norm goes from one image's to the other's.",
    "slerp_radius": "Along the great circle at even speed, the norm interpolated apart from it.",
    "constant_norm": "In a straight line, pushed out to one norm for all frames.",
    "lol": "Mixed so that the result is distributed as a draw of the codes' Gaussian, as far as the images are independent.",
    "posterior": "One draw from each interpolated posterior, with the same noise along a strip.",
    "two_part": "The semantic part in a straight line, the noise part along the great circle.",
    "geodesic": "The path on which the decoded pictures change least, at even speed.",
    "catmull_rom": "A smooth curve through the images.",
    "squad": "A smooth curve of directions through the images on the sphere, its norm between theirs.",
    "karcher": "The direction with the least squared angles to the images, times the mean of their norms.",
    "token_swap": "Every token is one image's or the other's; more and more of them are the second's, in a seeded order.",
    "codebook_lerp": "Every token goes straight from code to code, and each frame takes the codes nearest to that.",
}
FORMULAS = {
    "lerp": "(1 − t)a + tb; of means Σwᵢxᵢ / Σwᵢ",
    "slerp": "[sin((1 − t)ω)a + sin(tω)b] / sin ω, ω = 2·atan2(‖â − b̂‖, ‖â + b̂‖)",
    "slerp_radius": "slerp(â, b̂) · r(t), r linear (1 − t)‖a‖ + t‖b‖ or geometric ‖a‖^(1 − t)·‖b‖^t",
    "constant_norm": "lerp · r / ‖lerp‖, r = (‖a‖ + ‖b‖)/2",
    "lol": "(1 − α/√β)μ + y/√β with y = Σwᵢxᵢ, α = Σwᵢ, β = Σwᵢ² (arXiv 2408.08558)",
    "posterior": "μ_t + σ_t·ε, μ and σ each by lerp",
    "two_part": "lerp of the first numbers, slerp of the others (DiffAE)",
    "geodesic": "least n·Σ‖D(zᵢ₊₁) − D(zᵢ)‖² over the nodes between the ends (energy, in squared pixel units from 0 to 1), by L-BFGS",
    "catmull_rom": "cubic Hermite pieces with Barry and Goldman's tangents, image i of k at t = i/(k − 1)",
    "squad": "slerp(slerp(pᵢ, pᵢ₊₁, h), slerp(sᵢ, sᵢ₊₁, h), 2h(1 − h)), sᵢ = exp(−¼(log pᵢ₊₁ + log pᵢ₋₁)) at pᵢ",
    "karcher": "argmin Σwᵢ·ω(m, xᵢ)² over the unit sphere",
    "token_swap": "the first round(t·m) of the m differing tokens by rank are b's; the ranks are drawn from the seed of the row",
    "codebook_lerp": "argmin over codes k of ‖(1 − t)e(a) + te(b) − eₖ‖, the lower index on a tie",
}


def frames_in_words(table: StripTable) -> str:
    """What the columns of an interpolation count."""
    images = max((len(s.ids) for s in table.strips), default=2)
    if table.unit == "mean":
        return f"means of {images} images; columns: rows of weights"
    if images == 1:
        return "a path through one image stays there"
    if images == 2:
        return "from one image (0) to another (1)"
    return f"through {images} images, from the first (0) to the last (1)"


def explained(table: StripTable) -> Markup | None:
    """A sentence on the method and its formula; None for tables that are no interpolation."""
    method = str(table.operation.get("method", ""))
    if table.kind != "interpolate" or method not in SAID:
        return None
    return tag("details", tag("summary", SAID[method]), tag("p", FORMULAS[method]))


def found_in_words(found: Mapping[str, Any]) -> str:
    """Short: how a geodesic converged (what it costs beside the straight line), or how many tokens differ in the last frame."""
    if "changed" in found:
        return f"{100 * found['changed'][-1]:.0f} % of the tokens changed"
    if not found:
        return ""
    energies = f"energy {found['energy']:.3g}, straight {found['straight_energy']:.3g}"
    return f"{energies}; {found['iterations']} iterations"
