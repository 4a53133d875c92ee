"""Comparison: two codecs over the same images, and what of the old one's directions can be carried over (latent-science §8.4)."""
