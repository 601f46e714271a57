"""Programs that show Probewatch at work. Not part of the installed package."""
