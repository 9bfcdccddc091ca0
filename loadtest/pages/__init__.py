"""Results for people: an HTML page with plots, the plots as PNG, a screen of the terminal."""

from loadtest.pages.report import write
from loadtest.pages.screen import show, show_sweep
from loadtest.pages.soak import show_soak, write_soak
from loadtest.pages.sweep_page import write_sweep

__all__ = ["show", "show_soak", "show_sweep", "write", "write_soak", "write_sweep"]
