"""Results for people: an HTML page with plots, the plots as PNG, a screen of the terminal."""
