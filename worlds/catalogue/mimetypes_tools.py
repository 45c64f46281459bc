"""Functions of `mimetypes` as tools: what kinds of files there are, for mail and web servers."""

import mimetypes

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import NOUNS, made_by, named

KNOWN_ENDINGS = "pdf png jpg html csv zip mp3 mp4 json txt gif wav".split()
KINDS = {
    "application/pdf": "PDF documents",
    "image/png": "PNG pictures",
    "text/html": "web pages, text/html",
    "text/csv": "tables of type text/csv",
    "application/zip": "archives of type application/zip",
    "application/json": "JSON data",
    "image/gif": "image/gif",
}
MIME_TABLE = mimetypes.MimeTypes(filenames=())  # the library's own, whatever the machine has


@asked_for(
    "the media type of {file}",
    """
    What is the media type of {file}?
    Which Content-Type should my server send with {file}?
    I attach {file} to a mail. What MIME type does it get?
    Guess the type of {file} from its name.
    The upload form wants a MIME type for {file}.
    Under what type is {file} served?
    Look at the name {file} and tell me its media type.
    Content-Type for {file}, please.
    """,
    file=made_by(lambda rng: f"{rng.choice(NOUNS)}.{rng.choice(KNOWN_ENDINGS)}"),
)
def media_type(file: str) -> str:
    """The media type that a file's name stands for.

    file: the file's name
    """
    found, _ = MIME_TABLE.guess_type(f"/{file}")
    if not found:
        raise ValueError("the ending is not known")
    return found


@asked_for(
    "the usual ending for {media}",
    """
    Which file ending is usual for {media}?
    I save {media}. What extension should the files have?
    Give me the extension for {media}.
    My program writes {media} and has to name the file. With which ending?
    What do file names for {media} end in?
    Find the standard suffix of {media}.
    A download is {media} but has no ending. Which one do I add?
    Files holding {media} are called something dot what?
    """,
    media=named(KINDS),
)
def usual_ending(media: str) -> str:
    """The usual ending, with its dot, for a media type.

    media: the media type, e.g. image/jpeg
    """
    ending = MIME_TABLE.guess_extension(media)
    if not ending:
        raise ValueError("the type is not known")
    return ending
