"""What may have been meant by a name that does not exist."""

import difflib


def did_you_mean(name: str, known: list[str]) -> str:
    """Return the end of a message that names what is like `name` among the known names, or all if they are few."""
    bare = {option.lstrip("-"): option for option in known}  # dashes, which all options have, make none alike
    close = [bare[option] for option in difflib.get_close_matches(name.lstrip("-"), bare, n=3, cutoff=0.5)]
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are: {', '.join(sorted(known))}" if 0 < len(known) <= 12 else ""
