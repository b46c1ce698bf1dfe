"""Triangles, cameras and pixels: plain arrays in, plain arrays out. Knows no bodies."""
