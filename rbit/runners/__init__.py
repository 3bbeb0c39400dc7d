"""What a runner section's processor (python!, shell!) turns a message into."""
