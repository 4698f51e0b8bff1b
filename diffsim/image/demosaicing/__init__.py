"""From a mosaic to a picture: classical filters and networks."""
