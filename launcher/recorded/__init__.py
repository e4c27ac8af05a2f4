"""Records as they are read: JSON that a person may have edited, and a disk may have cut short.

What a field may hold stands in ``schemas.py`` and ``events.py``, in the words of ``kinds.py``;
``settings.py`` makes settings of what a launch recorded of them, and ``files.py`` reads the files.
A value that does not fit is named, with its file, and is not passed on: nothing behind this looks
at types again. Libraries that check a record whole (pydantic, msgspec) refuse all of it for one
field; here the rest is to be shown all the same.
"""
