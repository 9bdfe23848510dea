"""SVG charts that scale to any width. Each chart has a fixed font size, an accessible description and a data table."""

from groundup.report.charts.bars import Bar, draw_bar_chart
from groundup.report.charts.frame import figure
from groundup.report.charts.funnel import FunnelLevel, draw_funnel_chart
from groundup.report.charts.lines import Axis, ChartLine, draw_line_chart
from groundup.report.charts.matrix import draw_confusion_matrix

__all__ = [
    "Axis",
    "Bar",
    "ChartLine",
    "FunnelLevel",
    "draw_bar_chart",
    "draw_confusion_matrix",
    "draw_funnel_chart",
    "draw_line_chart",
    "figure",
]
