"""Places where people look at curves."""

from treenail.adapters.vis.jsonlines import JsonLines
from treenail.adapters.vis.plots import Panel, check_plot, plot_text, save_plot
from treenail.adapters.vis.tensorboard import TensorBoard

__all__ = ["JsonLines", "Panel", "TensorBoard", "check_plot", "plot_text", "save_plot"]
