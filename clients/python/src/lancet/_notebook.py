"""A request that is watched in a notebook."""

from __future__ import annotations

import base64
import html
from typing import Any, Optional

from lancet import _events as events
from lancet._pictures import Picture


class View:
    """What is to be seen of a request so far; a cell's output that is written anew with every event."""

    def __init__(self) -> None:
        self._status = "sent"
        self._done: Optional[float] = None  # 0 to 1
        self._text = ""
        self._picture: Optional[Picture] = None
        self.handle: Any = None

    def update(self, event: Any) -> None:
        if isinstance(event, events.Queued):
            self._status = f"queued, {event.position} ahead"
            if event.estimated_wait is not None:
                self._status += f", about {event.estimated_wait:.0f} s"
        elif isinstance(event, events.Started):
            self._status = "; ".join([f"started with seed {event.seed}", *event.warnings])
        elif isinstance(event, events.Progress):
            self._status = f"step {event.step} of {event.total_steps}, {event.estimated_remaining:.0f} s left"
            self._done = event.step / max(event.total_steps, 1)
        elif isinstance(event, events.Preview):
            self._picture = event.picture
        elif isinstance(event, events.Delta):
            self._text += event.text
        elif isinstance(event, events.ImageResult):
            self._status = f"seed {event.seed}, {event.timings.total:.1f} s"
            self._done = None
            self._picture = event.picture
        elif isinstance(event, events.TextResult):
            self._status = f"seed {event.seed}, {event.answer_tokens} tokens, {event.timings.total:.1f} s"
            self._text = event.text
        if self.handle is not None:
            self.handle.update(self)

    def _html(self) -> str:
        parts = [f"<div>{html.escape(self._status)}</div>"]
        if self._done is not None:
            parts.append(f'<progress value="{self._done:.3f}" max="1"></progress>')
        if self._text:
            parts.append(f'<div style="white-space: pre-wrap">{html.escape(self._text)}</div>')
        if self._picture is not None:
            mime_type, data = self._picture.for_notebook()
            source = f"data:{mime_type};base64,{base64.b64encode(data).decode()}"
            parts.append(f'<img src="{source}" alt="{html.escape(self._status)}">')
        return "\n".join(parts)

    def _repr_mimebundle_(self, **_options: object) -> dict[str, object]:
        text = self._status if not self._text else f"{self._text}\n{self._status}"
        return {"text/plain": text, "text/html": self._html()}


def open_view() -> View:
    """Shows an empty view in the cell that runs. ImportError without IPython."""
    from IPython.display import display  # of the notebook; nothing else needs it

    view = View()
    view.handle = display(view, display_id=True)
    return view
