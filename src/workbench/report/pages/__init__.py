"""The pages, one module each: what a page says, as blocks."""
