"""How a goal is disguised: encodings, wrappers and chains of them."""
