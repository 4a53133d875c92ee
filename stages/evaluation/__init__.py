"""Evaluation: what an edit does to decoded pictures, asked with intervals (latent-science §6)."""
