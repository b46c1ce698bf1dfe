"""Back ends of the rasteriser; each is imported only when it is used."""
