"""The train command: from a configuration and a folder to a trained flow in that folder."""
