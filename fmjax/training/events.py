"""TensorBoard's event files; the only module that imports tensorboardX.

tensorboardX's own writer hands events to a thread through a queue. Where that thread dies, as on a
full disk, the training waits at the queue for ever. These are written at once, in the caller's
thread, and a failure is an error there.
"""

import os
import socket
import struct
import time
from pathlib import Path

from fmjax.files import AppendedFile


class Events:
    """An event file of its own, in a folder that is made if missing.

    Args:
        folder: of the event files, the earlier ones included.
        start: the step that the training starts from; what earlier files say of later steps is
            hidden.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path, start: int):
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        stamp = f"{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self._file = AppendedFile(folder / f"events.out.tfevents.{stamp}")
        self._write(Event(file_version="brain.Event:2"))
        began = SessionLog(status=SessionLog.START)
        self._write(Event(step=start + 1, session_log=began))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes scalars under a step.

        Raises:
            OSError: they cannot be written.
        """
        from tensorboardX.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write_summary(step, Summary(value=scalars))

    def write_text(self, step: int, tag: str, text: str) -> None:
        """Writes a text, which is shown as Markdown, under a step.

        Raises:
            OSError: it cannot be written.
        """
        from tensorboardX.summary import text as summary_of_text

        self._write_summary(step, summary_of_text(tag, text))

    def write_picture(self, step: int, tag: str, path: Path) -> None:
        """Writes a PNG under a step.

        Raises:
            OSError: it cannot be read, or not be written.
        """
        from tensorboardX.proto.summary_pb2 import Summary

        content = path.read_bytes()
        # The first chunk of a PNG: width, height, bits, and 0 for grey, 2 for colour.
        width, height, _, colour = struct.unpack(">IIBB", content[16:26])
        image = Summary.Image(
            height=height,
            width=width,
            colorspace=3 if colour == 2 else 1,
            encoded_image_string=content,
        )
        self._write_summary(step, Summary(value=[Summary.Value(tag=tag, image=image)]))

    def _write_summary(self, step: int, summary) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._write(Event(step=step, summary=summary))

    def _write(self, event) -> None:
        from tensorboardX.record_writer import masked_crc32c

        event.wall_time = time.time()
        content = event.SerializeToString()
        length = struct.pack("<Q", len(content))
        sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, content)]
        self._file.write(length + sums[0] + content + sums[1])

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
