"""An agenda in a JSON file beside this one: appointments are found, added and removed.

    python sample.py --think --model out/smol/distilled --thinking.mode fast \
        --tools examples/agenda.json --prompt "Add lunch with Ines on 2027-03-05 at 12:30."
"""

import json
import os
from datetime import date, time
from pathlib import Path

FILE = Path(os.environ.get("AGENDA", Path(__file__).with_name("agenda-entries.json")))


def _read() -> list[dict]:
    return json.loads(FILE.read_text()) if FILE.exists() else []


def _write(entries: list[dict]) -> None:
    """Written aside and renamed: half a file is never there."""
    aside = FILE.with_suffix(".new")
    aside.write_text(json.dumps(sorted(entries, key=lambda e: (e["day"], e["at"])), indent=1))
    aside.replace(FILE)


def _day(text: str) -> str:
    return date.fromisoformat(text).isoformat()


def _hour(text: str) -> str:
    return time.fromisoformat(text).strftime("%H:%M")


def appointments(day: str) -> list[str]:
    """List the appointments of a day.

    day: the day, YYYY-MM-DD
    """
    day = _day(day)
    return [f"{entry['at']} {entry['what']}" for entry in _read() if entry["day"] == day]


def add_appointment(day: str, at: str, what: str) -> str:
    """Add an appointment to the agenda.

    day: the day, YYYY-MM-DD
    at: when it begins, HH:MM
    what: what it is
    """
    day, at = _day(day), _hour(at)
    entries = _read()
    if any((entry["day"], entry["at"]) == (day, at) for entry in entries):
        raise ValueError(f"{day} {at} is taken; choose another time")
    _write([*entries, {"day": day, "at": at, "what": what}])
    return f"added: {day} {at} {what}"


def cancel_appointment(day: str, at: str) -> str:
    """Remove an appointment.

    day: the day, YYYY-MM-DD
    at: when it begins, HH:MM
    """
    day, at = _day(day), _hour(at)
    entries = _read()
    kept = [entry for entry in entries if (entry["day"], entry["at"]) != (day, at)]
    if len(kept) == len(entries):
        raise ValueError(f"there is nothing at {day} {at}")
    _write(kept)
    return f"removed: {day} {at}"
