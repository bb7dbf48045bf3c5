"""What is attacked: harms and over-refusal controls."""
