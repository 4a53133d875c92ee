"""Reports as one HTML file: no scripts, no requests, pictures inside. Plain values in, text out."""
