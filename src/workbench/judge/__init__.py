"""Graders that tell unsafe from safe, with their own error."""
