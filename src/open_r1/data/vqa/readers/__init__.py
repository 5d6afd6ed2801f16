"""One module per published set: its forms, and how a row becomes a question."""
