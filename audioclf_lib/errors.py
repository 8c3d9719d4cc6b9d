"""The one exception for what a user can put right."""


class InputError(ValueError):
    """Something given by the user cannot be used.

    The message is one sentence that names the culprit and the remedy; the command line prints it without a traceback
    and ends with exit code 2.
    """
