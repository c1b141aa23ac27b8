"""What both sides must agree on: spaces, study files, tensors on the wire, channels, errors."""
