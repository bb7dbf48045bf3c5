"""Text encoders and their vector cache."""
