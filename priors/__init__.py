"""Statistics of clothed, posed people. Arrays in, arrays out."""
