"""The base of all panels: read the store, draw, and from then on send only what changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import anywidget
import IPython
import ipywidgets
import traitlets

from workbench.core.errors import ConfigError, WorkbenchError
from workbench.core.plain import one_line
from workbench.core.settings import read_settings
from workbench.notebook.widgets import look
from workbench.store.database import Store, open_store
from workbench.store.records import now

__all__ = ["SHARE", "Panel", "View", "check_choice"]

SHARE = 0.05
"""Of a core, at most, for keeping a panel up to date."""


class View(anywidget.AnyWidget):  # type: ignore[misc]  # no stubs
    """Shows blocks: all of them when a page asks, then changes, each with a sequence number."""

    _esm = (Path(__file__).parent / "panel.js").read_text(encoding="utf-8")
    title = traitlets.Unicode().tag(sync=True)
    css = traitlets.Unicode().tag(sync=True)

    def __init__(self, title: str) -> None:
        super().__init__(title=look.shown(title), css=str(look.style()))
        self._blocks: dict[str, look.Block] = {}
        self._seq = 0
        self._lock = threading.Lock()
        self.on_msg(self._asked)

    def show(self, blocks: dict[str, look.Block]) -> int:
        """Send what is new in the blocks; return how many messages that took."""
        with self._lock:
            old, self._blocks = self._blocks, blocks
            if list(old) != list(blocks):
                self._send_all()
                return 1
            sent = 0
            for name, block in blocks.items():
                if block == old[name]:
                    continue
                change = look.changes(name, old[name], block)
                if change:
                    self._seq += 1
                    sent += 1
                    what = {"put": [name, change]} if isinstance(change, str) else {"set": change}
                    self.send({"seq": self._seq, **what})
            return sent

    def _asked(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if isinstance(content, dict) and "hello" in content:
            with self._lock:
                self._send_all()

    def _send_all(self) -> None:
        self._seq += 1
        drawn = [[name, look.block_html(name, block)] for name, block in self._blocks.items()]
        self.send({"seq": self._seq, "all": drawn})


class Panel:
    """A live view of the store with a static twin; keeps nothing that the store has.

    A panel overrides :meth:`snapshot` and, where it does something, :meth:`controls`. A new one
    stops what follows for panels that earlier runs of the same cell made: nobody sees those.

    Args:
        store: What to read; the store that the settings name if not given.
    """

    title = "Panel"
    only_static: tuple[str, ...] = ()
    """Blocks that only the static twin shows: live, a widget shows the same."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or open_store(read_settings())
        self._replied: dict[str, look.Block] = {}
        self._thread: _Follower | None = None
        self._drawing = threading.RLock()
        self.made_in = _cell()
        self._stop_forgotten()

    def snapshot(self) -> dict[str, Any]:
        """Return ``{"blocks": {name: block}}`` as read from the store now; see ``look``.

        Names are the panel's own words, never text from data. Other keys are the panel's own.
        """
        raise NotImplementedError

    def controls(self) -> list[ipywidgets.Widget]:
        """Return the widgets below the view; none by default."""
        return []

    def build(self) -> ipywidgets.Widget:
        """Return the widget, made once."""
        return self.widget

    @cached_property
    def view(self) -> View:
        """The part that shows blocks."""
        return View(self.title)

    @cached_property
    def status(self) -> ipywidgets.Label:
        """The line below, for what went wrong and what was done."""
        return ipywidgets.Label()

    @cached_property
    def answer(self) -> View:
        """Where the answer to a press of a button appears."""
        return View("")

    @cached_property
    def widget(self) -> ipywidgets.VBox:
        """View, controls and status line."""
        try:
            controls = self.controls()
        except (WorkbenchError, OSError) as error:  # the view says the rest
            controls = []
            self.tell(error)
        for row in controls:  # what does not fit goes to the next line
            if isinstance(row, ipywidgets.HBox):
                row.layout.flex_flow = "row wrap"
        made = ipywidgets.VBox([self.view, *controls, self.status, self.answer])
        self.update()
        return made

    def update(self) -> dict[str, Any]:
        """Read the store once, show what changed, and return what was read."""
        with self._drawing:  # else what was read first may be shown last
            return self.draw(self._read())

    def draw(self, read: dict[str, Any]) -> dict[str, Any]:
        """Show what changed of a snapshot, and return it."""
        blocks = read["blocks"].items()
        self.view.show({name: one for name, one in blocks if name not in self.only_static})
        return read

    def tell(self, words: object) -> None:
        """Show one line below the panel."""
        self.status.value = look.cut(one_line(look.shown(words)), 400)

    def reply(self, blocks: dict[str, look.Block]) -> None:
        """Show blocks below, until the next answer; they stay in :meth:`to_html` too."""
        self._replied = blocks
        self.answer.show(blocks)

    def button(
        self, words: str, action: Callable[[], None], *, style: str = ""
    ) -> ipywidgets.Button:
        """Return a button; what it does is done by :meth:`do`.

        Args:
            words: What it says.
            action: What it does.
            style: ``primary``, ``danger`` or nothing.
        """
        wide = {"width": "auto", "min_width": "8rem"}  # long words are not cut
        made = ipywidgets.Button(description=words, button_style=style, layout=wide)
        made.on_click(lambda _: self.do(action))
        return made

    def do(self, action: Callable[[], None]) -> threading.Thread:
        """Do something in a thread, then update; errors are told in one line."""
        thread = threading.Thread(target=self._do, args=(action,), daemon=True)
        thread.start()
        return thread

    def _do(self, action: Callable[[], None]) -> None:
        self.status.value = ""  # of what was pressed before
        try:
            action()
        except (WorkbenchError, OSError) as error:
            self.tell(error)
        except Exception as error:  # ours to mend; who pressed is not left without an answer
            self.tell(f"{type(error).__name__}: {error}")
            raise
        self.update()

    def to_html(self) -> str:
        """Return the panel as it is now, as escaped HTML that needs nothing else."""
        read = self._read()
        note = f"Read from the store at {now()[:19].replace('T', ' ')} UTC"
        replied = {f"answer-{name}": one for name, one in self._replied.items()}
        return look.page_html(self.title, read["blocks"] | replied, note=note)

    def follow(self, every_s: float = 1.0) -> None:
        """Keep the panel up to date from a thread until :meth:`stop` or the widget is closed."""
        self.stop()
        self._thread = _Follower(self, every_s)
        self._thread.start()

    def stop(self) -> None:
        """Stop following."""
        thread, self._thread = self._thread, None
        if thread:
            thread.stopped.set()
            if thread is not threading.current_thread():
                thread.join(timeout=5)

    def close(self) -> None:
        """Stop following and take the widget off the page."""
        self.stop()
        for one in (self.view, self.answer, self.widget):
            one.close()

    def _stop_forgotten(self) -> None:
        cell, run = self.made_in
        for one in threading.enumerate() if cell else ():
            if isinstance(one, _Follower):
                its_cell, its_run = one.panel.made_in
                if its_cell == cell and its_run != run:
                    one.panel.stop()

    def _read(self) -> dict[str, Any]:
        try:
            return self.snapshot()
        except (WorkbenchError, OSError) as error:
            words = look.cut(one_line(look.shown(error)), 400)
            return {"blocks": {"error": look.text(words, is_note=True)}}

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle = self.widget._repr_mimebundle_(**kwargs) or {}
        data = dict(bundle[0] if isinstance(bundle, tuple) else bundle)
        return {**data, "text/html": self.to_html()}


class _Follower(threading.Thread):
    """Reads for a panel, seldom enough to take no more than its share of a core."""

    def __init__(self, panel: Panel, every_s: float) -> None:
        super().__init__(daemon=True)
        self.panel, self.stopped = panel, threading.Event()
        self._every_s, self._widget = every_s, panel.widget

    def run(self) -> None:
        """Read until told to stop, or the widget is closed."""
        took_s = 0.0
        while not self.stopped.wait(max(self._every_s, took_s / SHARE)):
            if self._widget.comm is None or self.panel.view.comm is None:  # closed
                return
            began = time.thread_time()
            self.panel.update()
            took_s = time.thread_time() - began


def check_choice(what: str, value: str, allowed: Collection[str]) -> str:
    """Return a value that is one of those allowed.

    Raises:
        ConfigError: Naming the argument, the value and all that is allowed.
    """
    if value not in allowed:
        listed = ", ".join(repr(one) for one in allowed)
        raise ConfigError(f"{what} {str(value)[:60]!r}: give one of {listed}")
    return value


def _cell() -> tuple[str, str]:
    """Return which cell runs, and which run of it that is; empty outside of notebooks."""
    asked: dict[str, Any] = getattr(IPython.get_ipython(), "get_parent", dict)()
    named = str(asked.get("metadata", {}).get("cellId", ""))
    return named, str(asked.get("header", {}).get("msg_id", ""))
