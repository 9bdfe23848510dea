"""Charts as SVG: fluid in width, with type of a fixed size, a description, and the figures in a table behind each."""

from groundup.report.charts.bars import Bar, bars
from groundup.report.charts.frame import figure
from groundup.report.charts.funnel import Level, funnel
from groundup.report.charts.lines import Axis, Line, lines
from groundup.report.charts.matrix import confusion

__all__ = ["Axis", "Bar", "Level", "Line", "bars", "confusion", "figure", "funnel", "lines"]
