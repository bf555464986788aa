"""Parts of a month's figures, each made from published tables of its own."""
