"""How launches are shown: tables, what stages print, and staying with one until it has ended."""
