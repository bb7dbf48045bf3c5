"""What is attacked: harms, applications, and controls that must not be refused."""
