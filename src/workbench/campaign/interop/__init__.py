"""Files and parts of other harnesses: promptfoo, garak, PyRIT, Inspect."""
