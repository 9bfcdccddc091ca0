"""Results for people: an HTML page with plots, the plots as PNG, a screen of the terminal."""

from loadtest.pages.reports import versus_page, write, write_soak, write_sweep
from loadtest.pages.screen import show, show_soak, show_sweep, show_versus

__all__ = [
    "show", "show_soak", "show_sweep", "show_versus", "versus_page", "write", "write_soak", "write_sweep",
]  # fmt: skip
