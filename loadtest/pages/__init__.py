"""Results for people: an HTML page with plots, the plots as PNG, a screen of the terminal."""

from loadtest.pages.report import write
from loadtest.pages.screen import show, show_sweep
from loadtest.pages.sweep_page import write_sweep

__all__ = ["show", "show_sweep", "write", "write_sweep"]
