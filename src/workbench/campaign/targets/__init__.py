"""What is attacked through: the bare model's door and the sanitizer in front of it."""
