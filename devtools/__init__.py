"""What `dev.py` does: set-up, a host process, a client for it, random models, the demo. Not for users."""
