"""Data sets, photographs and synthetic people; one file a source."""
