"""The walk of one frame's rows through the client table."""
