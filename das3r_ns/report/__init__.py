"""One HTML file about a clip: what was seen, what was removed, how far it is to be believed, what to do about doubts.

In: a scene folder, and the run that was trained on it where there is one. Out: a page that needs nothing beside it.
"""
