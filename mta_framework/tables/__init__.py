"""Tables, and their renderings as terminal text, Markdown, LaTeX, HTML and CSV."""
