"""`render_mode="human"`: the frames of an episode in a window of the standard library's Tk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from PIL import ImageTk

__all__ = ["Viewer"]


class Viewer:
    """A window that shows one frame after the other.

    Raises:
        RuntimeError: no window can be opened here (no display, or a Python built without Tk); the message says what
            to do instead.
    """

    def __init__(self, title: str = "clinenv") -> None:
        try:
            import tkinter

            from PIL import ImageTk
        except ImportError as error:
            raise RuntimeError(
                'render_mode="human" needs Tk, which this Python was built without; install it (python3-tk on Debian '
                'and Ubuntu) or use render_mode="rgb_array"'
            ) from error
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise RuntimeError(
                f'render_mode="human" needs a display and there is none ({error}); use render_mode="rgb_array"'
            ) from error
        self._to_photo = ImageTk.PhotoImage
        self._photo: ImageTk.PhotoImage | None = None
        self._open = True
        self._root.title(title)
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        self._label = tkinter.Label(self._root, borderwidth=0)
        self._label.pack()

    def show(self, frame: np.ndarray) -> None:
        """Put frame (uint8 [H, W, 3]) in the window; does nothing once the user has closed it."""
        if not self._open:
            return
        photo = self._to_photo(Image.fromarray(frame), master=self._root)
        self._photo = photo  # kept: Tk holds no reference
        self._label.configure(image=photo)
        self._root.update_idletasks()
        self._root.update()

    def close(self) -> None:
        """Close the window; closing twice is fine."""
        if self._open:
            self._open = False
            self._root.destroy()
