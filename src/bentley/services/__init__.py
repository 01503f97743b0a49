"""The processes of `bentley run`, and the replay exchange."""
