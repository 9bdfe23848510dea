"""Charts as SVG: fluid in width, with type of a fixed size, a description, and the figures in a table behind each."""

from groundup.report.charts.bars import Bar, draw_bar_chart
from groundup.report.charts.frame import figure
from groundup.report.charts.funnel import Level, draw_funnel_chart
from groundup.report.charts.lines import Axis, ChartLine, draw_line_chart
from groundup.report.charts.matrix import draw_confusion_matrix

__all__ = [
    "Axis",
    "Bar",
    "ChartLine",
    "Level",
    "draw_bar_chart",
    "draw_confusion_matrix",
    "draw_funnel_chart",
    "draw_line_chart",
    "figure",
]
