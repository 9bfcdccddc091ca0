from halimede.cli import app

app(prog_name="halimede")
