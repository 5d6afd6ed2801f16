"""Tables, heatmaps, curves and the page."""
