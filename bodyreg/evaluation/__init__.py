"""Evaluation: metrics, protocols and the tables made of them."""
