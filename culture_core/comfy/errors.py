"""What is wrong with a text encoder, in the user's terms."""


class TextEncoderError(ValueError):
    """A text encoder that cannot be loaded or is not the right one; the message says which and what to do."""
