"""Sizes and colours that the charts and their specifications share."""

WIDTH = 400
INK, SOFT, GRID = "#1b2430", "#55606e", "#d9dee4"
# New and gains, renewals, losses.
BLUE, PALE, VERMILION = "#0072b2", "#c9d3dc", "#d55e00"
